"""The stage `process`: DL0 stores to image parameters (DL1b) and stereo geometry (DL2a)."""

import concurrent.futures
import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import Progress
from astri_gpu.stages.units import counted, file_units, find_inputs, image_total, run_units

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
        if not self.n_done:
            return f"process: nothing to do, {counted(self.n_before, 'store')} done before"
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

    A store without counts, but with the charges of every pixel (DL1a), is processed from these.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced.
    AstriError
        When the input has neither counts nor charges, cannot be processed, or the backend cannot
        be used.
    """
    from astri_gpu.backend import make_backend
    from astri_gpu.provenance import now, provenance
    from astri_gpu.stages.constants import constants_table, write_constants
    from astri_gpu.stages.images import process_images
    from astri_gpu.stages.stereo import StereoEvents
    from astri_gpu.store import copy_group, create, fingerprint, open_store
    from astri_gpu.store_layout import read_layout

    started = now()
    backend = make_backend(config.backend.name, config.backend.threads, config.backend.devices)
    store, before = open_store(path), fingerprint(path)
    from_charges = _starts_from_charges(store, config)
    layout = read_layout(store)
    cameras = {camera.name: camera for camera in layout.cameras}
    recorded = asdict(config)
    attrs = {**store.attrs, "data_level": LEVEL, "config": recorded}
    attrs.pop("stereo_algorithm", None)  # of the input
    warnings = []
    with (
        create(output, overwrite=config.overwrite, attrs=attrs) as writer,
        concurrent.futures.ThreadPoolExecutor(1) as copying,
    ):
        measured = config.calibration.constants == "events"
        left_behind = {
            "instrument": (),
            "monitoring": ("camera",) if measured else (),
            "simulation": (),
            "dl0": LEFT_BEHIND,
        }
        copies = [
            copying.submit(copy_group, store, writer, group, exclude)
            for group, exclude in left_behind.items()
            if group in store
        ]
        names = store.cameras()
        stereo = StereoEvents(store, writer, layout, names, backend, config)
        # With one camera the events are complete as their images come; otherwise they wait.
        also = functools.partial(stereo.add, names[0]) if len(names) == 1 else None
        n_images = 0
        shown = shown or Progress(None, "process", "images")
        for name in names:
            camera = cameras[name]
            unknown = camera.optics.effective_focal_length_m is None
            if config.calibration.focal_length == "auto" and unknown:
                warnings.append(
                    f"{path}: the effective focal length of {name} is not known; angles use the "
                    f"equivalent one ({camera.optics.focal_length_m:g} m)."
                )
            constants = None if from_charges else constants_table(store, name, camera, config)
            if measured and constants is not None:
                concurrent.futures.wait(copies)  # both write into monitoring
                write_constants(writer, name, constants)
            n_images += process_images(
                store, writer, name, camera, backend, config, shown, constants, also
            )
        if also is None:
            stereo.read_back(writer)
        n_stereo = stereo.finish()
        for copied in copies:
            copied.result()
        record = provenance("process", recorded, [path], started)
        if record["inputs"][0]["checksum"] != before:
            raise AstriError(f"The store {path} has changed while it was read: run again.")
        record["backend"] = backend.name
        record["previous"] = store.attrs.get("provenance")
        writer.set_attrs("", {"provenance": record})
    return StoreSummary(
        n_images, store.n_rows("dl0/event"), n_stereo, backend.name, tuple(warnings)
    )


def _starts_from_charges(store: "Store", config: "ProcessConfig") -> bool:
    """Return whether the images of a store are charges; refuse what cannot be done with them."""
    from astri_gpu.batch import has_charges

    level, cameras = store.attrs.get("data_level"), store.cameras()
    if level == "DL0" and cameras:
        return False
    if not cameras or not all(has_charges(store, name) for name in cameras):
        raise AstriError(
            f"{store.path} is a {level} store, and process starts from ADC counts or from the "
            "charges of every pixel: give the DL0 store that `astri-gpu ingest` wrote, or one that "
            "was made with images=true."
        )
    if config.cleaning.method == "nsb":
        raise AstriError(
            f"{store.path} has charges, but not how much each of them varies without light, which "
            "cleaning=nsb needs: choose another cleaning, or start from the DL0 store."
        )
    if config.calibration.constants == "events":
        raise UsageError(
            f"calibration.constants=events measures from counts, and {store.path} has charges: "
            "use calibration.constants=store."
        )
    return True


def run(config: "ProcessConfig") -> Summary:
    """Process every input store and return what was done.

    One input is written to `output`; several are written into the directory `output`, as
    `config.execution` says. Stores that are complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output that was made from something else or
        with other options.
    AstriError
        For the first bad store with on_error "stop", or when no store could be processed.
    PartialFailure
        With on_error "skip", at the end, when some stores failed and the others are done.
    """
    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    outcome = run_units(
        "process",
        file_units(inputs, Path(config.output), config),
        process_store,
        config,
        total=image_total(inputs),
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
