"""The stage `process`: DL0 stores to image parameters (DL1b) and stereo geometry (DL2a)."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError
from astri_gpu.progress import Progress
from astri_gpu.stages.units import counted, find_inputs, run_units

if TYPE_CHECKING:
    from astri_gpu.config import ProcessConfig
    from astri_gpu.store import Store

__all__ = ["Summary", "process_store", "run"]

LEVEL = "DL2a"
# Raw counts stay behind; everything else of the input travels along.
LEFT_BEHIND = ("adc", "waveform", "trigger_pixel")


@dataclass(frozen=True)
class Summary:
    """What was processed; `line` is the summary for the terminal."""

    n_done: int
    n_before: int
    n_images: int
    n_events: int
    n_stereo: int
    seconds: float
    backend: str
    outputs: tuple[Path, ...]

    @property
    def line(self) -> str:
        """Return stores, images, events, seconds and images/s in one line."""
        rate = self.n_images / self.seconds if self.seconds > 0 else 0.0
        before = f" ({self.n_before} more were done before)" if self.n_before else ""
        return (
            f"process: {counted(self.n_done, 'store')}{before}, "
            f"{counted(self.n_images, 'image')}, {counted(self.n_events, 'event')} "
            f"({self.n_stereo} with stereo geometry) in {self.seconds:.1f} s "
            f"({rate:,.0f} images/s, backend {self.backend})"
        )


@dataclass(frozen=True)
class StoreSummary:
    """What one store held."""

    n_images: int
    n_events: int
    n_stereo: int
    backend: str
    warnings: tuple[str, ...] = ()


def process_store(
    path: Path, output: Path, config: "ProcessConfig", shown: Progress | None = None
) -> StoreSummary:
    """Process one DL0 store into one DL2a store, which appears whole or not at all.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced.
    AstriError
        When the input is no DL0 store, cannot be processed, or the backend cannot be used.
    """
    from astri_gpu.backend import make_backend
    from astri_gpu.provenance import now, provenance
    from astri_gpu.stages.constants import constants_table, write_constants
    from astri_gpu.stages.images import process_images
    from astri_gpu.stages.stereo import process_events
    from astri_gpu.store import copy_group, create, open_store
    from astri_gpu.store_layout import read_layout

    started = now()
    backend = make_backend(config.backend.name, config.backend.threads)
    store = open_store(path)
    _check_counts(store)
    layout = read_layout(store)
    cameras = {camera.name: camera for camera in layout.cameras}
    recorded = asdict(config)
    attrs = {**store.attrs, "data_level": LEVEL, "config": recorded}
    warnings = []
    with create(output, overwrite=config.overwrite, attrs=attrs) as writer:
        measured = config.calibration.constants == "events"
        for group in ("instrument", "monitoring", "simulation"):
            if group in store:
                replaced = ("camera",) if group == "monitoring" and measured else ()
                copy_group(store, writer, group, exclude=replaced)
        copy_group(store, writer, "dl0", exclude=LEFT_BEHIND)
        n_images = 0
        shown = shown or Progress(None, "process", "images")
        for name in store.cameras():
            camera = cameras[name]
            unknown = camera.optics.effective_focal_length_m is None
            if config.calibration.focal_length == "auto" and unknown:
                warnings.append(
                    f"{path}: the effective focal length of {name} is not known; angles use the "
                    f"equivalent one ({camera.optics.focal_length_m:g} m)."
                )
            constants = constants_table(store, name, camera, config)
            if measured:
                write_constants(writer, name, constants)
            n_images += process_images(
                store, writer, name, camera, backend, config, shown, constants
            )
        n_stereo = process_events(store, writer, layout, backend, config)
        record = provenance("process", recorded, [path], started)
        record["backend"] = backend.name
        record["previous"] = store.attrs.get("provenance")
        writer.set_attrs("", {"provenance": record})
    return StoreSummary(
        n_images, store.n_rows("dl0/event"), n_stereo, backend.name, tuple(warnings)
    )


def _check_counts(store: "Store") -> None:
    """Refuse stores without ADC counts."""
    level = store.attrs.get("data_level")
    if level != "DL0" or not store.cameras():
        raise AstriError(
            f"{store.path} is a {level} store, and process starts from ADC counts: give the DL0 "
            "store that `astri-gpu ingest` wrote."
        )


def run(config: "ProcessConfig") -> Summary:
    """Process every input store and return what was done.

    One input is written to `output`; several are written into the directory `output`, and those
    whose output is complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output of a single input.
    AstriError
        For the first bad store with on_error "stop", or when no store could be processed.
    PartialFailure
        With on_error "skip", at the end, when some stores failed and the others are done.
    """
    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    outcome = run_units(
        "process",
        inputs,
        Path(config.output),
        process_store,
        config,
        n_workers=config.n_workers,
        unit="images",
        total=_n_images(inputs),
    )
    done: list[StoreSummary] = outcome.done
    return outcome.finish(
        Summary(
            n_done=len(done),
            n_before=outcome.n_before,
            n_images=sum(part.n_images for part in done),
            n_events=sum(part.n_events for part in done),
            n_stereo=sum(part.n_stereo for part in done),
            seconds=time.perf_counter() - started,
            backend=done[0].backend if done else config.backend.name,
            outputs=outcome.outputs,
        )
    )


def _n_images(inputs: list[Path]) -> int | None:
    """Return the images of a single input, for the progress bar; None if nobody knows."""
    from astri_gpu.store import open_store

    if len(inputs) > 1:
        return None
    return open_store(inputs[0]).attrs.get("n_images")
