"""The stage `simulate`: Monte Carlo productions from the built-in shower model or from CORSIKA."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import UsageError
from astri_gpu.progress import Progress
from astri_gpu.stages.units import Unit, counted, find_inputs, output_names, run_units

if TYPE_CHECKING:
    from astri_gpu.config_simulation import SimulateConfig
    from astri_gpu.simulation.production import ProductionSummary

__all__ = ["Summary", "production_units", "run"]

logger = logging.getLogger(__name__)

# `simulate` takes the level of the ground from a CORSIKA file and records that one.
OF_THE_FILE = ("atmosphere.observation_level_m",)


@dataclass(frozen=True)
class Summary:
    """What was simulated; `line` is the summary for the terminal.

    `n_thrown` counts every use of a shower, `n_bytes` is the size of the stores on the disk. All
    numbers are those of this run; `n_before` parts had been finished by an earlier one.
    """

    n_showers: int
    n_thrown: int
    n_events: int
    n_images: int
    seconds: float
    n_bytes: int
    backend: str
    output: Path
    n_done: int = 1
    n_before: int = 0
    outputs: tuple[Path, ...] = ()

    @property
    def line(self) -> str:
        """Return showers, events, images, seconds, rates and size in one line."""
        before = f"{counted(self.n_before, 'part')} done before"
        if not self.n_done:
            return f"simulate: nothing to do, {before}"
        uses = "" if self.n_thrown == self.n_showers else f" ({self.n_thrown} uses)"
        parts = f" in {counted(self.n_done, 'part')}" if len(self.outputs) > 1 else ""
        parts += f" ({before})" if self.n_before else ""
        showers_rate, images_rate = (
            number / self.seconds if self.seconds > 0 else 0.0
            for number in (self.n_showers, self.n_images)
        )
        return (
            f"simulate: {counted(self.n_showers, 'shower')}{uses}{parts}, "
            f"{counted(self.n_events, 'triggered event')}, {counted(self.n_images, 'image')} in "
            f"{self.seconds:.1f} s ({showers_rate:,.0f} showers/s, {images_rate:,.0f} images/s, "
            f"{self.n_bytes / 1e6:.1f} MB, backend {self.backend})"
        )


def run(config: "SimulateConfig") -> Summary:
    """Simulate a production into the store `output`, or its parts into the directory `output`.

    Parts are made as `config.execution` says; those that are complete already are left as they are.

    Raises
    ------
    UsageError
        For a production that cannot be, or an existing output that was made with other options.
    AstriError
        When an input file, the disk or the backend cannot be used.
    PartialFailure
        With on_error "skip", at the end, when some parts failed and the others are done.
    """
    started = time.perf_counter()
    units = production_units(config)
    model = config.source == "model"
    outcome = run_units(
        "simulate",
        units,
        _simulate,
        config,
        unit="showers" if model else "events",
        total=config.n_showers if model else None,
        ignored=() if model else OF_THE_FILE,
    )
    done: list[ProductionSummary] = outcome.done
    for part in done:
        if not part.n_events:
            logger.warning(
                "%s holds no event: none of %d thrown showers triggered a telescope",
                part.output,
                part.n_thrown,
            )
    return outcome.finish(
        Summary(
            n_showers=sum(part.n_showers for part in done),
            n_thrown=sum(part.n_thrown for part in done),
            n_events=sum(part.n_events for part in done),
            n_images=sum(part.n_images for part in done),
            seconds=time.perf_counter() - started,
            n_bytes=sum(part.n_bytes for part in done),
            backend=done[0].backend if done else config.backend.name,
            output=Path(config.output),
            n_done=len(done),
            n_before=outcome.n_before,
            outputs=outcome.outputs,
        )
    )


def production_units(config: "SimulateConfig") -> list[Unit]:
    """Return the stores that a production consists of, each with the options that make it alone.

    Part k of n covers the showers from first_shower + k n_showers / n on. Showers are those of the
    undivided production, because random numbers are named by the number of the shower; every part
    has an `obs_id` of its own (see `observation_number`), and calibration events of its own,
    which are the same in all parts.

    Raises
    ------
    UsageError
        When `output` is a store already and has to hold several.
    """
    from astri_gpu.simulation.plan import observation_number, plan_production

    output = Path(config.output)
    if config.source == "corsika":
        inputs = find_inputs(config.inputs())
        if len(inputs) > 1 and config.obs_id is not None:
            raise UsageError(
                f"obs_id={config.obs_id} would be given to {len(inputs)} files, so that event "
                "numbers repeat: simulate them one by one or leave obs_id out."
            )
        stores = output_names(inputs, output)
        return [
            Unit(path, store, replace(config, input=str(path), output=str(store)))
            for path, store in zip(inputs, stores, strict=True)
        ]
    if config.n_parts == 1:
        return [Unit(None, output, config)]
    if (output / "zarr.json").exists() or output.is_file():
        raise UsageError(
            f"The output {output} of {config.n_parts} parts has to be a directory for stores, but "
            "it is a store or a file: choose another output."
        )
    if not output.exists():
        plan_production(config)  # is there room on the disk for all of it?
    n, first, showers = config.n_parts, config.first_shower, config.n_showers
    edges = [first + k * showers // n for k in range(n + 1)]
    names = [output / f"part_{k:04d}.zarr" for k in range(n)]
    return [
        Unit(
            None,
            store,
            replace(
                config,
                output=str(store),
                n_parts=1,
                first_shower=edges[k],
                n_showers=edges[k + 1] - edges[k],
                obs_id=observation_number(config, k),
            ),
        )
        for k, store in enumerate(names)
    ]


def _simulate(
    path: Path | None, output: Path, config: "SimulateConfig", shown: Progress | None
) -> "ProductionSummary":
    """Simulate one store."""
    del path, output  # the configuration of the unit has them
    if config.source == "corsika":
        from astri_gpu.simulation.corsika import simulate_corsika

        return simulate_corsika(config, shown)
    from astri_gpu.simulation.production import simulate

    return simulate(config, shown)
