"""The stage `reconstruct`: DL2a stores and forests to energy, class, direction (DL1c, DL2b)."""

import concurrent.futures
import contextlib
import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.progress import Progress
from astri_gpu.stages.units import counted, file_units, find_inputs, image_total, run_units

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from astri_gpu.config import ReconstructConfig
    from astri_gpu.reconstruction.apply import Reconstructor
    from astri_gpu.reconstruction.blocks import EventBlock
    from astri_gpu.reconstruction.models import ModelSet, TaskModel
    from astri_gpu.store import Store, StoreWriter

__all__ = ["Summary", "reconstruct_store", "run"]

LEVEL = "DL2b"
NEEDED = ("dl2/event/stereo_is_valid", "dl0/event", "dl1/image", "dl2/image")
DEPTH = 2  # blocks that wait to be written


@dataclass(frozen=True)
class Summary:
    """What was reconstructed; `line` is the summary for the terminal."""

    n_done: int
    n_before: int
    n_images: int
    n_events: int
    n_valid: int
    seconds: float
    backend: str
    outputs: tuple[Path, ...]

    @property
    def line(self) -> str:
        """Return stores, images, events, seconds and images/s in one line."""
        if not self.n_done:
            return f"reconstruct: nothing to do, {counted(self.n_before, 'store')} done before"
        rate = self.n_images / self.seconds if self.seconds > 0 else 0.0
        before = f" ({self.n_before} more were done before)" if self.n_before else ""
        return (
            f"reconstruct: {counted(self.n_done, 'store')}{before}, "
            f"{counted(self.n_images, 'image')}, {counted(self.n_events, 'event')} "
            f"({self.n_valid} reconstructed) in {self.seconds:.1f} s "
            f"({rate:,.0f} images/s, backend {self.backend})"
        )


@dataclass(frozen=True)
class StoreSummary:
    """What one store held."""

    n_images: int
    n_events: int
    n_valid: int
    backend: str
    warnings: tuple[str, ...] = ()


def reconstruct_store(
    path: Path, output: Path, config: "ReconstructConfig", shown: Progress | None = None
) -> StoreSummary:
    """Apply models to one DL2a store; the DL2b store appears whole or not at all.

    The output is a copy of the input, with the columns of the models in ``dl2/event`` and
    ``dl2/image``. Those that an earlier reconstruction left are replaced.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, or is the input.
    AstriError
        When the models cannot be read or do not fit the store, the store is not processed or
        cannot be read, or the backend cannot be used.
    """
    from astri_gpu.provenance import now, provenance
    from astri_gpu.reconstruction.apply import EVENT_COLUMNS, TELESCOPE_COLUMNS
    from astri_gpu.reconstruction.model_file import check_store
    from astri_gpu.store import copy_group, create, fingerprint, open_store

    started = now()
    if output.exists() and output.samefile(path):
        raise UsageError(
            f"The output {output} is the input, which is never changed: choose another output."
        )
    store, before = open_store(path), fingerprint(path)
    _check_level(store)
    model = Path(config.model)
    checksum, models, apply, backend = _prepared(*_identity(model), config.backend)
    check_store(models, store)
    recorded = asdict(config)
    attrs = {**store.attrs, "data_level": LEVEL, "config": recorded}
    with (
        create(output, overwrite=config.overwrite, attrs=attrs) as writer,
        concurrent.futures.ThreadPoolExecutor(1) as copying,
    ):
        # The tables that grow: their columns of now have to be there before new ones are added.
        copy_group(store, writer, "dl2", {*EVENT_COLUMNS, *TELESCOPE_COLUMNS})
        copies = [
            copying.submit(copy_group, store, writer, group.name)
            for group in sorted(store.path.iterdir())
            if group.name in store and group.name != "dl2"
        ]
        n_valid, n_images = _reconstruct(store, writer, apply, shown)
        for copied in copies:
            copied.result()
        record = provenance("reconstruct", recorded, [path, model], started)
        for name, known, entry in zip(
            ("store", "file of models"), (before, checksum), record["inputs"], strict=True
        ):
            if entry["checksum"] != known:
                raise AstriError(
                    f"The {name} {entry['path']} has changed while it was read: run again."
                )
        record["backend"] = backend
        record["previous"] = store.attrs.get("provenance")
        writer.set_attrs("", {"provenance": record, "models": _described(models, model, checksum)})
    return StoreSummary(n_images, store.n_rows("dl2/event"), n_valid, backend)


def _check_level(store: "Store") -> None:
    """Refuse a store without image parameters or stereo geometry."""
    missing = [path for path in NEEDED if path not in store]
    if missing:
        raise AstriError(
            f"{store.path} is a {store.attrs.get('data_level')} store without {missing[0]}: "
            "reconstruct starts from image parameters and stereo geometry, run `astri-gpu process` "
            "first."
        )


def _identity(model: Path) -> tuple[Path, int, int]:
    """Return a file with what tells whether it is still the same one."""
    try:
        status = model.stat()
    except OSError as error:
        raise AstriError(
            f"The file of models {model} cannot be read ({error.strerror}): give one that "
            "`astri-gpu train` wrote."
        ) from error
    return model, status.st_mtime_ns, status.st_size


def _prepared(
    path: Path, changed_ns: int, size: int, backend: Any
) -> "tuple[str, ModelSet, Reconstructor, str]":
    """Return checksum, models, what applies them, and the name of the backend.

    Many stores are done with one file: it is read once in a process.
    """
    return _load(path, changed_ns, size, backend.name, backend.threads, backend.devices)


@functools.lru_cache(maxsize=1)
def _load(
    path: Path, changed_ns: int, size: int, name: str, threads: int, devices: int
) -> "tuple[str, ModelSet, Reconstructor, str]":
    from astri_gpu.backend import make_backend
    from astri_gpu.reconstruction.apply import Reconstructor
    from astri_gpu.reconstruction.model_file import load_models
    from astri_gpu.store import fingerprint

    del changed_ns, size  # they only say whether it is another file
    backend = make_backend(name, threads, devices)
    checksum = fingerprint(path)
    models = load_models(path)
    return checksum, models, Reconstructor(models, backend), backend.name


def _reconstruct(
    store: "Store", writer: "StoreWriter", apply: "Reconstructor", shown: Progress | None
) -> tuple[int, int]:
    """Write the columns of the models; return the valid events and all images.

    Blocks are read ahead and written behind, in threads of their own.
    """
    from astri_gpu.batch import WriteBehind
    from astri_gpu.reconstruction.apply import EVENT_COLUMNS, TELESCOPE_COLUMNS

    cameras = store.cameras("dl1")
    tables = {
        name: writer.table(f"dl2/image/{name}", TELESCOPE_COLUMNS, sizes={}) for name in cameras
    }
    events = writer.table("dl2/event", EVENT_COLUMNS, sizes={})
    n_valid = n_images = 0

    def write(rows: "dict[str, NDArray[Any]]", images: "dict[str, Any]") -> None:
        events.append(rows)
        for name, columns in images.items():
            tables[name].append(columns)

    with (
        contextlib.closing(_blocks(store, apply, cameras)) as blocks,
        WriteBehind(write, DEPTH) as written,
    ):
        for block in blocks:
            rows, images = apply(block)
            written(rows, images)
            n_valid += int(rows["reco_is_valid"].sum())
            n_block = sum(len(columns["tel_is_valid"]) for columns in images.values())
            n_images += n_block
            if shown is not None:
                shown.advance(n_block)
    for path, table in [("dl2/event", events), *((t.path, t) for t in tables.values())]:
        if table.n_rows != store.n_rows(path):
            raise AstriError(
                f"{path} in the store {store.path} has {store.n_rows(path)} rows, but "
                f"{table.n_rows} belong to its images and events: the store is damaged, make it "
                "again."
            )
    return n_valid, n_images


def _blocks(store: "Store", apply: "Reconstructor", cameras: list[str]) -> "Generator[EventBlock]":
    from astri_gpu.reconstruction.blocks import read_event_blocks

    names = sorted(set().union(*(apply.image_names(camera) for camera in cameras)))
    blocks = read_event_blocks(store, names, sorted(apply.event_names), cameras=cameras)
    return cast("Generator[EventBlock]", blocks)  # to be closed: it has a thread


def _described(models: "ModelSet", path: Path, checksum: str) -> dict[str, Any]:
    """Return what a report wants to know about the models, without the trees."""

    def tasks(part: "dict[str, TaskModel]") -> dict[str, Any]:
        return {
            task: {
                "features": list(model.features),
                "importances": dict(model.importances),
                "estimator": type(model.estimator).__name__,
            }
            for task, model in part.items()
        }

    # Told above, or once more in the provenance.
    own = ("format", "filter", "disp", "cameras", "array", "importances", "config")
    return {
        "path": str(path),
        "checksum": checksum,
        "filter": models.filter,
        "disp": models.disp,
        "cameras": {
            name: {"image": tasks(camera.image), "stereo": tasks(camera.stereo)}
            for name, camera in models.cameras.items()
        },
        "array": tasks(models.array),
        "training": {name: value for name, value in models.meta.items() if name not in own},
    }


def run(config: "ReconstructConfig") -> Summary:
    """Reconstruct every input store and return what was done.

    One input is written to `output`; several are written into the directory `output`, as
    `config.execution` says. Stores that are complete already are left as they are.

    Raises
    ------
    UsageError
        For options that do not fit, or an existing output that was made from something else, with
        other models or with other options.
    AstriError
        For the first bad store with on_error "stop", or when no store could be reconstructed.
    PartialFailure
        With on_error "skip", at the end, when some stores failed and the others are done.
    """
    from astri_gpu.reconstruction.model_file import describe_models

    started = time.perf_counter()
    inputs = find_inputs(config.inputs())
    describe_models(config.model)  # what is no file of models is told once, not for every input
    outcome = run_units(
        "reconstruct",
        file_units(inputs, Path(config.output), config),
        reconstruct_store,
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
            n_valid=sum(part.n_valid for part in done),
            seconds=time.perf_counter() - started,
            backend=done[0].backend if done else config.backend.name,
            outputs=outcome.outputs,
        )
    )
