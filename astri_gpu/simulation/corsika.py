"""Light of CORSIKA through our telescopes: photon bunches of an IACT file to a DL0 store.

Every telescope of the file becomes an ASTRI telescope at its place; `corsika_light` makes
photo-electrons of the bunches, and the camera is that of our own showers.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.config_simulation import SimulateConfig, ViewConfig
from astri_gpu.errors import AstriError
from astri_gpu.io.iact import IactEvent, IactReader, IactRun
from astri_gpu.io.simtel_instrument import particle_kind
from astri_gpu.io.simtel_truth import SUBARRAY
from astri_gpu.kernels.simulation_types import (
    SPEED_OF_LIGHT,
    Images,
    LightTables,
    ProductionSettings,
    StepGrid,
)
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.simulation.calibration import calibration_blocks, variance_images
from astri_gpu.simulation.corsika_light import Light, MeanEfficiency, collect_light
from astri_gpu.simulation.engine import Simulator, simulator
from astri_gpu.simulation.frame import GroundLine, ShowerFrame
from astri_gpu.simulation.layout import telescopes_at
from astri_gpu.simulation.plan import ProductionPlan
from astri_gpu.simulation.production import (
    START_S,
    DeadTime,
    ProductionSummary,
    event_id,
    event_time_ns,
)
from astri_gpu.simulation.thrown import ThrownHistogram
from astri_gpu.simulation.writer import NS, EventBlock, ProductionWriter

__all__ = ["simulate_corsika"]

logger = logging.getLogger(__name__)

IMAGES_PER_CALL, PHOTONS_PER_CALL = 1024, 4_000_000

Floats = NDArray[np.float64]


def simulate_corsika(config: SimulateConfig, progress: Progress | None = None) -> ProductionSummary:
    """Write the DL0 store of a CORSIKA IACT file and return what is in it.

    Telescopes look at `view` where it differs from its default, else where the showers of the file
    come from (the centre of their view cone). The observation level is that of the file.

    Parameters
    ----------
    config
        With ``source="corsika"`` and `input`.
    progress
        Is told about every event.

    Raises
    ------
    UsageError
        When the output exists, or the telescopes of the file cannot be simulated.
    AstriError
        When the file is no IACT file, damaged or truncated, or the backend cannot be used. Nothing
        is left behind.
    """
    started, clock = now(), time.perf_counter()
    path = Path(config.input)
    with IactReader(path) as reader:
        events = iter(reader)
        first = next(events, None)
        if first is None:
            raise AstriError(f"The CORSIKA file {path} has no events.")
        config = _with_file(config, reader.run)
        plan = _plan(config, path, reader.run, first)
        tools = _tools(config, plan)
        recorded = asdict(config)
        with ProductionWriter(
            config.output,
            plan.layout,
            alt=plan.frame.alt,
            az=plan.frame.az,
            obs_id=plan.obs_id,
            attrs={
                "source": path.name,
                "config": recorded,
                "simulation_model": _model_note(reader.run),
            },
            true_images=config.true_images,
            images_per_chunk=config.images_per_chunk,
            overwrite=config.overwrite,
        ) as writer:
            writer.constants(tools.true)
            variance_images(config, plan, tools, writer, START_S)
            for block in calibration_blocks(config, plan, tools, START_S):
                writer.append(block)
            production = _Production(config, plan, tools, first)
            for block in production.blocks(_chained(first, events), progress):
                writer.append(block)
            record = provenance("simulate", recorded, [path], started)
            record["backend"] = tools.backend
            writer.finish(
                header=production.header(reader.run),
                thrown=production.thrown,
                attrs={"provenance": record, "kind": particle_kind(production.primaries)},
            )
    output = Path(config.output)
    return ProductionSummary(
        output=output,
        backend=tools.backend,
        n_showers=production.n_showers,
        n_thrown=production.thrown.n_entries,
        n_events=writer.n_events,
        n_images=writer.n_images,
        seconds=time.perf_counter() - clock,
        n_bytes=sum(entry.stat().st_size for entry in output.rglob("*") if entry.is_file()),
    )


def _chained(first: IactEvent, rest: Iterator[IactEvent]) -> Iterator[IactEvent]:
    yield first
    yield from rest


def _model_note(run: IactRun) -> str:
    return (
        f"Showers of CORSIKA {run.corsika_version:.4g}, telescopes of the fast model of astri_gpu, "
        "which is no substitute for sim_telarray."
    )


def _with_file(config: SimulateConfig, run: IactRun) -> SimulateConfig:
    """Return the options with the observation level of the file."""
    level = run.observation_level_m
    if config.atmosphere.observation_level_m != level:
        logger.info("%s: observation level %g m, as in the file", config.input, level)
    return replace(config, atmosphere=replace(config.atmosphere, observation_level_m=level))


def _plan(config: SimulateConfig, path: Path, run: IactRun, first: IactEvent) -> ProductionPlan:
    small = run.radius < config.optics.mirror_radius_m
    if small.any():
        raise AstriError(
            f"Telescope {int(np.argmax(small)) + 1} in the CORSIKA file {path} collected light "
            f"within {float(run.radius.min()):g} m, and the mirror has a radius of "
            f"{config.optics.mirror_radius_m:g} m: light is missing; set optics.mirror_radius_m."
        )
    places = [(row + 1, *place) for row, place in enumerate(run.position.tolist())]
    layout = telescopes_at(places, config, path.name, where=f"the CORSIKA file {path}")
    default, view = ViewConfig(), config.view
    alt, az = first.view_alt, first.view_az
    if (view.zenith_deg, view.azimuth_deg) != (default.zenith_deg, default.azimuth_deg):
        alt, az = 90.0 - view.zenith_deg, view.azimuth_deg % 360.0
    settings = ProductionSettings(
        primary=first.true_primary_id,
        seed=config.seed,
        energy_min_gev=1e3 * run.energy_min_tev,
        energy_max_gev=1e3 * run.energy_max_tev,
        spectral_index=run.spectral_index,
        scatter_radius_m=run.scatter_m,
        cone_min_rad=math.radians(first.cone_min_deg),
        cone_max_rad=math.radians(first.cone_max_deg),
        n_uses=first.n_uses,
        zenith_rad=math.radians(90.0 - alt),
    )
    obs_id = run.run_number if config.obs_id is None else config.obs_id
    return ProductionPlan(settings, layout, ShowerFrame(alt, az), obs_id, (path,))


def _tools(config: SimulateConfig, plan: ProductionPlan) -> Simulator:
    """Return an engine for light that comes from outside: its shower model is empty."""
    zero, edge = np.zeros(1), np.array([1.0, 0.0])
    grid = StepGrid(
        zero, edge, zero, np.zeros(1, np.int32), zero, zero, zero, zero,
        math.cos(plan.settings.zenith_rad), math.sin(plan.settings.zenith_rad),
    )  # fmt: skip
    table = np.zeros((1, 2, 2))
    samples = np.zeros((2, 2, 2, 1), dtype=np.float32)
    axis = np.array([0.0, 1.0])
    tables = LightTables(axis, axis + 0.5, table, np.array([0.0, 1.0, 2.0]), samples, samples)
    return simulator(config, plan, light=(grid, tables))


class _Waiting(NamedTuple):
    """Images whose light waits for the camera."""

    events: list[IactEvent]
    event: list[int]  # row in `events` of each image
    tel: list[int]
    light: list[Light]


class _Production:
    """The loop over the events of a file and what it remembers."""

    def __init__(
        self, config: SimulateConfig, plan: ProductionPlan, tools: Simulator, first: IactEvent
    ) -> None:
        self._config, self._plan, self._tools = config, plan, tools
        limits = first.wavelength_min_nm, first.wavelength_max_nm
        self._efficiency = MeanEfficiency(config, math.cos(plan.settings.zenith_rad), limits)
        self._dead_time = DeadTime(plan.layout.n_telescopes, config.camera.dead_time_us)
        self._last = (0, 0)
        self.thrown = ThrownHistogram(max(plan.settings.scatter_radius_m, 1.0))
        self.primaries: set[int] = set()
        self.n_showers = 0

    def header(self, run: IactRun) -> dict[str, Any]:
        """Return the attributes of the group `simulation`."""
        config = replace(self._config, n_showers=max(self.n_showers, 1), first_shower=0)
        flat = self._plan.header(config)
        flat.pop("mc_run_headers")
        flat |= {"corsika_version": run.corsika_version, "n_showers": self.n_showers}
        return {**flat, "mc_run_headers": [dict(flat)]}

    def blocks(
        self, events: Iterator[IactEvent], progress: Progress | None
    ) -> Iterator[EventBlock]:
        """Yield what the cameras store of all events."""
        waiting = _Waiting([], [], [], [])
        for event in events:
            self._throw(event)
            self._collect(event, waiting)
            full = len(waiting.light) >= IMAGES_PER_CALL
            if full or sum(len(light.time) for light in waiting.light) >= PHOTONS_PER_CALL:
                yield from self._expose(waiting)
                waiting = _Waiting([], [], [], [])
            if progress is not None:
                progress.advance(1)
        yield from self._expose(waiting)

    def _throw(self, event: IactEvent) -> None:
        place = (event.shower, event.use)
        if place <= self._last:
            raise AstriError(
                f"The CORSIKA file {self._config.input} has shower {event.shower}, use "
                f"{event.use}, after shower {self._last[0]}, use {self._last[1]}: files that were "
                "joined have to be simulated one by one."
            )
        self.n_showers += event.shower != self._last[0]
        self._last = place
        self.primaries.add(event.true_primary_id)
        x, y = self._place(event)
        self.thrown.fill(np.hypot(x, y), np.array([event.true_energy]))

    def _place(self, event: IactEvent) -> tuple[Floats, Floats]:
        """Return where the axis passes H = 0, (1,) each."""
        frame = self._plan.frame
        q_lon, q_lat = frame.tangent(np.array([event.true_alt]), np.array([event.true_az]))
        return frame.place(np.array([event.core_x]), np.array([event.core_y]), q_lon, q_lat)

    def _collect(self, event: IactEvent, waiting: _Waiting) -> None:
        """Turn the bunches of an event into light; dim images are left out, as in the model."""
        offset = self._time_offset(event)
        row = len(waiting.events)
        waiting.events.append(event)
        for tel, bunches in enumerate(event.bunches):
            light = collect_light(
                bunches,
                self._efficiency,
                self._plan.frame,
                self._config.optics.mirror_radius_m,
                counter=(event.shower, (event.use - 1) << 8 | tel),
                seed=self._plan.settings.seed,
                time_offset_ns=offset,
            )
            if len(light.time) >= self._plan.settings.min_image_pe:
                waiting.event.append(row)
                waiting.tel.append(tel)
                waiting.light.append(light)

    def _time_offset(self, event: IactEvent) -> float:
        """Return what makes times count from the front at H = 0, ns.

        CORSIKA counts from the front at the core on the ground; on the way from H = 0 to there the
        primary covers the distance between the two.
        """
        x, y = self._place(event)
        e_lon, e_lat, _ = self._plan.frame.axes
        at_zero = float(x[0]) * e_lon + float(y[0]) * e_lat
        step = np.array([event.core_x, event.core_y, 0.0]) - at_zero
        downwards = -float(np.sign(step[2])) if step[2] else 0.0
        return downwards * float(np.linalg.norm(step)) / SPEED_OF_LIGHT

    def _expose(self, waiting: _Waiting) -> Iterator[EventBlock]:
        """Yield the events of which at least one telescope triggers."""
        if not waiting.light:
            return
        event, tel = np.array(waiting.event), np.array(waiting.tel)
        shower = np.array([entry.shower for entry in waiting.events], dtype=np.uint32)
        use = np.array([entry.use - 1 for entry in waiting.events], dtype=np.uint32)
        sky_lon, sky_lat, moment = (
            np.concatenate(part) for part in zip(*waiting.light, strict=True)
        )
        start = np.cumsum([0, *(len(light.time) for light in waiting.light)])
        images = self._tools.engine.images_of_light(
            np.stack([shower[event], use[event] << 8 | tel.astype(np.uint32)], axis=1),
            tel,
            start,
            sky_lon,
            sky_lat,
            moment,
            np.ones(len(moment)),
            forced=False,
        )
        config, settings = self._config, self._plan.settings
        times = event_time_ns(
            shower, use, n_uses=settings.n_uses, rate_hz=config.event_rate_hz, seed=settings.seed
        )
        taken = self._dead_time.taken(images, tel, times[event])
        if len(taken):
            images = Images(*(column[taken] for column in images))
            stored, image_event = np.unique(event[taken], return_inverse=True)
            entries = [waiting.events[row] for row in stored]
            yield self._block(
                entries, times[stored], image_event.astype(np.int64), tel[taken], images
            )

    def _block(
        self,
        entries: list[IactEvent],
        time_ns: NDArray[np.int64],
        image_event: NDArray[np.int64],
        image_tel: NDArray[np.int64],
        images: Images,
    ) -> EventBlock:
        def column(name: str) -> NDArray[Any]:
            return np.array([getattr(entry, name) for entry in entries])

        line = GroundLine(column("true_alt"), column("true_az"), column("core_x"), column("core_y"))
        shower, use = column("shower"), column("use") - 1
        return EventBlock(
            event_id=event_id(shower, use, self._plan.settings.n_uses),
            unix_ns=START_S * NS + time_ns,
            event_type=np.full(len(entries), SUBARRAY, dtype=np.uint8),
            truth={
                "shower_id": shower.astype(np.int64),
                "true_energy": column("true_energy"),
                "true_alt": line.alt,
                "true_az": line.az,
                "true_core_x": line.core_x,
                "true_core_y": line.core_y,
                "true_h_first_int": column("first_interaction_height"),
                "true_starting_grammage": column("starting_grammage"),
                "true_primary_id": column("true_primary_id").astype(np.int32),
            },
            image_event=image_event,
            image_tel=image_tel,
            impact_distance=self._plan.frame.impact(line, self._plan.layout)[
                image_event, image_tel
            ],
            images=images,
        )
