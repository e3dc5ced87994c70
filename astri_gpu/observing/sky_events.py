"""Showers over the array, as they come: real times, real rates, the pointing of the moment."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import make_backend
from astri_gpu.errors import UsageError
from astri_gpu.kernels.simulation_types import SPEED_OF_LIGHT, CameraModel, Events, Primaries
from astri_gpu.observing.particles import Stratum
from astri_gpu.observing.triggers import SHOWER, Showers, Triggers, joined
from astri_gpu.simulation.camera_model import camera_model, camera_settings, optics_model
from astri_gpu.simulation.engine import ShowerEngine, make_engine
from astri_gpu.simulation.frame import ShowerFrame, axes_of, line_of
from astri_gpu.simulation.plan import GEV_PER_TEV, LAST_SHOWER
from astri_gpu.simulation.production import IMAGES_PER_SLICE, image_slices
from astri_gpu.simulation.tables import LARGEST_ZENITH_DEG, light_tables
from astri_gpu.simulation.writer import NS

if TYPE_CHECKING:
    from astri_gpu.config_observation import SimulateObservationConfig
    from astri_gpu.observing.plan import RunPlan

__all__ = ["Block", "SkyEvents", "blocks"]

BLOCK_S = 10.0
"""Longest part of a run that is made at once: 0.1 GB of images at 100 Hz and nine telescopes."""
BATCH = 16_384  # showers
TABLE_STEP_DEG = 1.0
"""Light tables are made for whole degrees of zenith angle: at 20 deg, half a degree changes the
depth of the air by 0.3 %."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Block(NamedTuple):
    """A part of the run, s from its start."""

    number: int
    slice: int
    start_s: float
    stop_s: float


class _Slice(NamedTuple):
    """Engines of the strata for one direction of the pointing."""

    frame: ShowerFrame
    engines: tuple[ShowerEngine, ...]
    calibration: ShowerEngine


def blocks(duration_s: float, slice_s: float) -> Iterator[Block]:
    """Yield the parts of a run: every slice in equal parts of at most `BLOCK_S`."""
    n_slices = max(1, int(np.ceil(duration_s / slice_s - 1e-9)))
    number = 0
    for place in range(n_slices):
        start, stop = place * slice_s, min((place + 1) * slice_s, duration_s)
        edges = np.linspace(start, stop, max(1, int(np.ceil((stop - start) / BLOCK_S))) + 1)
        for low, high in pairwise(edges.tolist()):
            yield Block(number, place, low, high)
            number += 1


class SkyEvents:
    """Makes the showers of one block of the run after the other.

    Within a slice showers develop in the air of the pointing of its middle; where they come from is
    relative to the pointing of their own time, and so is their truth. In a minute the frame turns
    by about half a degree, which moves a core by some metres (left out) and the times at the
    telescopes by some ns (corrected).

    Parameters
    ----------
    config, plan
        Of the run.
    """

    def __init__(self, config: "SimulateObservationConfig", plan: "RunPlan") -> None:
        self._config, self._plan = config, plan
        layout, camera = plan.layout, config.camera
        self._backend = make_backend(
            config.backend.name, config.backend.threads, config.backend.devices
        )
        self.camera: CameraModel = camera_model(
            camera, config.optics, layout.cameras[0], layout.tel_id, camera.constants_seed
        )
        self._optics = optics_model(config.optics, layout.cameras[0].optics.focal_length_m)
        self._position = np.stack([layout.x, layout.y, layout.z])
        self._first = dict.fromkeys(range(len(plan.strata)), 0)
        self._slice: _Slice | None = None
        self._slice_number = -1
        self.n_thrown, self._n_events = 0, 0

    @property
    def backend(self) -> str:
        """Return the name of what computes."""
        return self._backend.name

    def calibration_engine(self, block: Block) -> ShowerEngine:
        """Return the engine of calibration events, whose random numbers are of their own."""
        return self._of(block).calibration

    def make(self, block: Block) -> tuple[Triggers | None, Showers | None]:
        """Return the triggers of a block (dead time not looked at) and the showers behind them.

        Blocks are made in their order, because showers are numbered in the order of time.
        """
        made = self._of(block)
        triggers: list[Triggers] = []
        showers: list[Showers] = []
        for place, (stratum, engine) in enumerate(
            zip(self._plan.strata, made.engines, strict=True)
        ):
            for number in self._numbers(place, stratum, block):
                for some, behind in self._batch(stratum, engine, made.frame, number, block):
                    # Numbers are those of this block so far, counted part by part.
                    before = sum(len(part.event) for part in showers)
                    triggers.append(some._replace(event=some.event + before))
                    showers.append(behind)
        if not triggers:
            return None, None
        return self._numbered(joined(triggers), joined(showers))

    def _numbered(self, triggers: Triggers, showers: Showers) -> tuple[Triggers, Showers]:
        """Return both with the showers in the order of time and numbered through the run."""
        order = np.argsort(showers.time_ns, kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = self._n_events + np.arange(len(order))
        self._n_events += len(order)
        ordered = Showers._make(column[order] for column in showers)
        return (
            triggers._replace(event=rank[triggers.event]),
            ordered._replace(event=rank[order]),
        )

    def _of(self, block: Block) -> _Slice:
        """Return the engines of the slice of a block."""
        if self._slice is None or block.slice != self._slice_number:
            self._slice, self._slice_number = None, block.slice
            start = block.slice * self._config.slice_s
            stop = min(start + self._config.slice_s, self._plan.duration_s)
            alt, az = self._plan.track.pointing(np.array([(start + stop) / 2]))
            self._slice = self._engines(ShowerFrame(float(alt[0]), float(az[0])))
        return self._slice

    def _engines(self, frame: ShowerFrame) -> _Slice:
        config = self._config
        zenith = TABLE_STEP_DEG * round((90.0 - frame.alt) / TABLE_STEP_DEG)
        zenith_rad = float(np.deg2rad(min(zenith, LARGEST_ZENITH_DEG)))
        grid, tables = light_tables(config.atmosphere, config.shower, config.optics, zenith_rad)
        telescopes = frame.telescopes(self._plan.layout)
        of_calibration = self._plan.calibration_settings
        made = [
            make_engine(
                self._backend,
                replaced,
                grid,
                tables,
                telescopes,
                self._optics,
                self.camera,
                camera_settings(config.camera),
            )
            for replaced in (
                settings._replace(zenith_rad=zenith_rad)
                for settings in (*(s.settings for s in self._plan.strata), of_calibration)
            )
        ]
        return _Slice(frame, tuple(made[:-1]), made[-1])

    def _numbers(self, place: int, stratum: Stratum, block: Block) -> Iterator[NDArray[np.uint32]]:
        """Yield the numbers of the particles of a block, a batch at a time."""
        n = stratum.count(block.number, block.stop_s - block.start_s)
        first = self._first[place]
        self._first[place] = first + n
        self.n_thrown += n
        if first + n > LAST_SHOWER:
            raise UsageError(
                f"More than {LAST_SHOWER} particles ({stratum.particle}) are to be thrown: make "
                "the run shorter (observation.duration_s), or the fluxes smaller."
            )
        for start in range(first, first + n, BATCH):
            yield np.arange(start, min(start + BATCH, first + n), dtype=np.uint32)

    def _batch(
        self,
        stratum: Stratum,
        engine: ShowerEngine,
        frame: ShowerFrame,
        number: NDArray[np.uint32],
        block: Block,
    ) -> Iterator[tuple[Triggers, Showers]]:
        """Yield what triggers of some particles; showers are counted from 0 in each yield."""
        primaries = engine.primaries(number)
        moment, chance = stratum.times(number, block.stop_s - block.start_s)
        time_ns = moment + round(block.start_s * NS)
        if stratum.particle == "gamma":
            q_lon, q_lat = self._plan.track.source(time_ns / NS)
            primaries = primaries._replace(q_lon=q_lon, q_lat=q_lat)
        events = engine.events(number, 1)
        use = engine.candidates(primaries, events) & stratum.kept(primaries.energy, chance)
        if not use.any():
            return
        events = Events(*(column[use] for column in events))
        events = events._replace(shower=np.arange(len(events.x)))
        primaries = Primaries(*(column[use] for column in primaries))
        time_ns = time_ns[use]
        rows = engine.develop(primaries)
        mean = engine.expected(primaries, rows, events)
        image_event, image_tel = np.nonzero(mean >= stratum.settings.min_image_pe)
        mean = mean[image_event, image_tel]
        for part in image_slices(image_event, IMAGES_PER_SLICE):
            event, tel = image_event[part], image_tel[part]
            images = engine.images(primaries, rows, events, event, tel, mean[part])
            hit = np.flatnonzero(images.triggered)
            if not len(hit):
                continue
            chosen, which = np.unique(event[hit], return_inverse=True)
            alt, az = self._plan.track.pointing(time_ns[chosen] / NS)
            axes = axes_of(alt, az)
            when = time_ns[event[hit]] + np.rint(
                images.trigger_time[hit] + self._turned(frame, axes)[tel[hit], which]
            ).astype(np.int64)
            line = line_of(
                axes,
                events.x[chosen],
                events.y[chosen],
                primaries.q_lon[chosen],
                primaries.q_lat[chosen],
            )
            yield (
                Triggers(
                    tel=tel[hit],
                    time_ns=when,
                    event=which.astype(np.int64),
                    event_type=np.full(len(hit), SHOWER, np.uint8),
                    adc=images.adc[hit],
                    pixels=images.trigger_pixel[hit],
                ),
                Showers(
                    event=np.arange(len(chosen)),
                    kind=np.full(len(chosen), stratum.settings.primary, np.int32),
                    energy=primaries.energy[chosen] / GEV_PER_TEV,
                    alt=line.alt,
                    az=line.az,
                    core_x=line.core_x,
                    core_y=line.core_y,
                    time_ns=time_ns[chosen],
                ),
            )

    def _turned(self, frame: ShowerFrame, axes: Floats) -> Floats:
        """Return how much later light comes than in the frame of the slice, ns, (tel, event).

        A telescope that is higher along the pointing sees the front earlier.
        """
        middle = frame.axes[2] @ self._position
        now = np.einsum("ce,ct->te", axes[2], self._position)
        return (middle[:, None] - now) / SPEED_OF_LIGHT
