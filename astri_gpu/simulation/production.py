"""The production driver: showers in batches, from primaries to the DL0 store.

Nothing that is drawn depends on the batches: every random number is named by the shower, the use
and the telescope that it belongs to. Memory does not grow with the number of showers.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.io.simtel_truth import SUBARRAY
from astri_gpu.kernels.random import key_of, philox, uniform
from astri_gpu.kernels.simulation_types import (
    Events,
    Images,
    Primaries,
    ShowerRows,
    Stream,
)
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.simulation.calibration import calibration_blocks, variance_images
from astri_gpu.simulation.engine import Simulator, simulator
from astri_gpu.simulation.plan import GEV_PER_TEV, ProductionPlan, plan_production
from astri_gpu.simulation.rows import select_showers
from astri_gpu.simulation.thrown import ThrownHistogram
from astri_gpu.simulation.truth import shower_maximum, starting_height
from astri_gpu.simulation.writer import NS, EventBlock, ProductionWriter

__all__ = [
    "START_S",
    "DeadTime",
    "ProductionSummary",
    "event_id",
    "event_time_ns",
    "image_slices",
    "simulate",
]

START_S = 1_767_225_600
"""Unix time at which every production starts: 2026-01-01T00:00:00 UTC."""
IMAGES_PER_SLICE = 2048  # 10 kB of counts each, drawn in one call


@dataclass(frozen=True)
class ProductionSummary:
    """What came of a production; `seconds` with everything, `n_bytes` on the disk."""

    output: Path
    backend: str
    n_showers: int
    n_thrown: int  # every use counts
    n_events: int
    n_images: int
    seconds: float
    n_bytes: int


class _Batch(NamedTuple):
    """Candidates of a batch: their showers developed, and the images that may trigger."""

    primaries: Primaries
    rows: ShowerRows
    events: Events
    image_event: NDArray[np.int64]
    image_tel: NDArray[np.int64]
    mean_pe: NDArray[np.float64]


class DeadTime:
    """Telescopes that are blind for a while after each trigger.

    Triggers during the dead time do not prolong it. A part of a production starts with all
    telescopes awake.

    Parameters
    ----------
    n_telescopes
        Of the array.
    dead_time_us
        Length in microseconds.
    """

    def __init__(self, n_telescopes: int, dead_time_us: float) -> None:
        self._length_ns = dead_time_us * 1e3
        self._awake_at = np.full(n_telescopes, -np.inf)

    def awake(self, tel: NDArray[np.int64], time_ns: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which triggers are taken, given in the order of time.

        Parameters
        ----------
        tel
            (trigger,), row of the telescope.
        time_ns
            (trigger,), from any fixed moment.
        """
        taken = np.ones(len(tel), dtype=bool)
        if self._length_ns == 0:
            return taken
        for row, (telescope, moment) in enumerate(zip(tel, time_ns, strict=True)):
            taken[row] = moment >= self._awake_at[telescope]
            if taken[row]:
                self._awake_at[telescope] = moment + self._length_ns
        return taken

    def taken(
        self, images: Images, tel: NDArray[np.int64], time_ns: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return which images trigger while their telescope is awake, (taken,).

        Parameters
        ----------
        images
            In the order of their events.
        tel
            (image,), row of the telescope.
        time_ns
            (image,), of the event, from any fixed moment.
        """
        triggered = np.flatnonzero(images.triggered)
        moment = time_ns[triggered] + images.trigger_time[triggered]
        return triggered[self.awake(tel[triggered], moment)]


def event_id(shower: NDArray[Any], use: NDArray[Any], n_uses: int) -> NDArray[np.int64]:
    """Return shower * n_uses + use + 1: positive and unique in all parts of a production."""
    return np.asarray(shower).astype(np.int64) * n_uses + np.asarray(use).astype(np.int64) + 1


def event_time_ns(
    shower: NDArray[Any], use: NDArray[Any], *, n_uses: int, rate_hz: float, seed: int
) -> NDArray[np.int64]:
    """Return when events happen, ns after `START_S`.

    Thrown showers come at a fixed rate, each at a random moment of its own interval (stream
    `TIME`), so that times rise with the event number whatever part of them triggers.
    """
    index = (event_id(shower, use, n_uses) - 1).astype(np.float64)
    words = philox(
        np.asarray(shower), Stream.TIME << 24, np.asarray(use), np.zeros_like(use), key=key_of(seed)
    )
    # Whole seconds apart, so that the nanoseconds keep their digits.
    whole, rest = np.divmod(index, rate_hz)
    moment = np.floor((rest + uniform(words[0])) / rate_hz * NS).astype(np.int64)
    return whole.astype(np.int64) * NS + moment


def image_slices(event: NDArray[np.int64], limit: int) -> Iterator[slice]:
    """Yield slices of a list of images that keep the images of an event together.

    Parameters
    ----------
    event
        (image,), rising.
    limit
        Images in a slice, unless a single event has more.
    """
    ends = np.append(np.nonzero(np.diff(event))[0] + 1, len(event))
    start = 0
    while start < len(event):
        fitting = ends[(ends > start) & (ends <= start + limit)]
        stop = int(fitting[-1]) if len(fitting) else int(ends[ends > start][0])
        yield slice(start, stop)
        start = stop


def simulate(config: SimulateConfig, progress: Progress | None = None) -> ProductionSummary:
    """Write the DL0 store of a production and return what is in it.

    Parameters
    ----------
    config
        With ``source="model"``.
    progress
        Is told about every batch of showers.

    Raises
    ------
    UsageError
        For a production that cannot be, or an output that exists.
    AstriError
        When the disk is too small, or the atmosphere or the backend cannot be used.
    """
    started, clock = now(), time.perf_counter()
    plan = plan_production(config)
    recorded = asdict(config)
    with ProductionWriter(
        config.output,
        plan.layout,
        alt=plan.frame.alt,
        az=plan.frame.az,
        obs_id=plan.obs_id,
        attrs={"source": "simulation", "kind": config.production, "config": recorded},
        true_images=config.true_images,
        images_per_chunk=config.images_per_chunk,
        overwrite=config.overwrite,
    ) as writer:
        tools = simulator(config, plan)
        writer.constants(tools.true)
        variance_images(config, plan, tools, writer, START_S)
        for block in calibration_blocks(config, plan, tools, START_S):
            writer.append(block)
        thrown = ThrownHistogram(plan.reach_m)
        production = _Production(config, plan, tools, thrown)
        for n_showers, blocks in production.batches():
            for block in blocks:
                writer.append(block)
            if progress is not None:
                progress.advance(n_showers)
        record = provenance("simulate", recorded, plan.inputs, started)
        record["backend"] = tools.backend
        writer.finish(header=plan.header(config), thrown=thrown, attrs={"provenance": record})
    return ProductionSummary(
        output=Path(config.output),
        backend=tools.backend,
        n_showers=config.n_showers,
        n_thrown=thrown.n_entries,
        n_events=writer.n_events,
        n_images=writer.n_images,
        seconds=time.perf_counter() - clock,
        n_bytes=_bytes_below(Path(config.output)),
    )


def _bytes_below(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(where, name)).st_size
        for where, _, names in os.walk(folder)
        for name in names
    )


class _Production:
    """The loop over the showers and what it remembers: thrown showers and dead times."""

    def __init__(
        self,
        config: SimulateConfig,
        plan: ProductionPlan,
        tools: Simulator,
        thrown: ThrownHistogram,
    ) -> None:
        self._config, self._plan, self._tools, self._thrown = config, plan, tools, thrown
        self._engine, self._settings = tools.engine, plan.settings
        self._dead_time = DeadTime(plan.layout.n_telescopes, config.camera.dead_time_us)

    def batches(self) -> Iterator[tuple[int, Iterator[EventBlock]]]:
        """Yield the number of showers and the stored events of each batch."""
        first = self._config.first_shower
        last = first + self._config.n_showers
        step = max(1, self._config.batch_size // self._settings.n_uses)
        for start in range(first, last, step):
            shower = np.arange(start, min(start + step, last), dtype=np.uint32)
            batch = self._candidates(shower)
            yield len(shower), self._blocks(batch) if batch else iter(())

    def _candidates(self, shower: NDArray[np.uint32]) -> _Batch | None:
        """Throw showers and return what may trigger of them."""
        engine = self._engine
        primaries = engine.primaries(shower)
        events = engine.events(shower, self._settings.n_uses)
        self._thrown.fill(
            np.hypot(events.x, events.y), primaries.energy[events.shower] / GEV_PER_TEV
        )
        candidate = engine.candidates(primaries, events)
        if not candidate.any():
            return None
        events = Events(*(column[candidate] for column in events))
        developed, row = np.unique(events.shower, return_inverse=True)
        events = events._replace(shower=row.astype(np.int64))
        primaries = Primaries(*(column[developed] for column in primaries))
        rows = engine.develop(primaries)
        mean = engine.expected(primaries, rows, events)
        image_event, image_tel = np.nonzero(mean >= self._settings.min_image_pe)
        return _Batch(primaries, rows, events, image_event, image_tel, mean[image_event, image_tel])

    def _blocks(self, batch: _Batch) -> Iterator[EventBlock]:
        """Yield the events of a batch that trigger."""
        for part in image_slices(batch.image_event, IMAGES_PER_SLICE):
            event, tel = batch.image_event[part], batch.image_tel[part]
            images = self._engine.images(
                batch.primaries, batch.rows, batch.events, event, tel, batch.mean_pe[part]
            )
            time_ns = self._time_ns(batch, event)
            taken = self._dead_time.taken(images, tel, time_ns)
            if len(taken):
                images = Images(*(column[taken] for column in images))
                yield self._block(batch, event[taken], tel[taken], images)

    def _time_ns(self, batch: _Batch, event: NDArray[np.int64]) -> NDArray[np.int64]:
        return event_time_ns(
            batch.primaries.shower[batch.events.shower[event]],
            batch.events.use[event],
            n_uses=self._settings.n_uses,
            rate_hz=self._config.event_rate_hz,
            seed=self._settings.seed,
        )

    def _block(
        self, batch: _Batch, event: NDArray[np.int64], tel: NDArray[np.int64], images: Images
    ) -> EventBlock:
        """Return the stored form of images that triggered."""
        stored, image_event = np.unique(event, return_inverse=True)
        events = Events(*(column[stored] for column in batch.events))
        primaries = Primaries(*(column[events.shower] for column in batch.primaries))
        rows = select_showers(batch.rows, events.shower)
        frame, settings, grid = self._plan.frame, self._settings, self._tools.grid
        line = frame.line(events.x, events.y, primaries.q_lon, primaries.q_lat)
        n_events = len(stored)
        time_ns = self._time_ns(batch, stored)
        return EventBlock(
            event_id=event_id(primaries.shower, events.use, settings.n_uses),
            unix_ns=START_S * NS + time_ns,
            event_type=np.full(n_events, SUBARRAY, dtype=np.uint8),
            truth={
                "shower_id": primaries.shower.astype(np.int64),
                "true_energy": primaries.energy / GEV_PER_TEV,
                "true_alt": line.alt,
                "true_az": line.az,
                "true_core_x": line.core_x,
                "true_core_y": line.core_y,
                "true_h_first_int": self._plan.layout.altitude_m
                + starting_height(rows, primaries, grid),
                "true_x_max": shower_maximum(rows, primaries, grid),
                "true_starting_grammage": np.zeros(n_events),
                "true_primary_id": np.full(n_events, settings.primary, dtype=np.int32),
            },
            image_event=image_event.astype(np.int64),
            image_tel=tel,
            impact_distance=frame.impact(line, self._plan.layout)[image_event, tel],
            images=images,
        )
