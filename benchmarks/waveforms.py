"""Waveforms of a real file: the compiled chain beside ctapipe's calibrator and image processor.

``python -m benchmarks.waveforms FILE.simtel.zst [--output benchmarks/results]``. Both start from
events in memory and do ctapipe's default processing; ctapipe from calibrated waveforms (R1), ours
from ADC counts. Contestants take turns, see README.md.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .cases import peak_memory_mib, run_case
from .ceilings import read_bytes_per_s
from .chains import worst_difference
from .machine import describe, slug
from .timing import rates

__all__ = ["main", "measure_waveforms", "waveform_case"]

N_IMAGES = 400  # of one round: the images of the file, repeated
N_ROUNDS = 7
N_COMPARED = 64
PEER = "ctapipe"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waveforms", description=__doc__)
    parser.add_argument("file", type=Path, help="sim_telarray file with waveforms")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    machine = describe()
    found = measure_waveforms(options.file, n_images=N_IMAGES, n_rounds=N_ROUNDS)
    if found is None:
        parser.error(f"{options.file} has no waveforms")
    lines = [
        "# Waveforms",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores; {found['camera']} images of (gain, pixel, sample) = "
        f"{tuple(found['shape'])} from {found['file']}, default processing of ctapipe, in memory.",
        "| who | images/s | ratio to ctapipe |\n|---|---:|---:|\n"
        + "\n".join(
            f"| {name} | {entry['images_per_s']:,.0f} "
            f"| {'' if (ratio := entry['ratio_to_ctapipe']) is None else f'{ratio:.1f}'} |"
            for name, entry in found["rates"].items()
        ),
    ]
    text = "\n\n".join(lines) + "\n"
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{slug(machine)}-waveforms.md").write_text(text)


def measure_waveforms(
    path: str | Path,
    *,
    n_images: int,
    n_rounds: int,
    threads: int = 0,
    folder: str | Path | None = None,
) -> dict[str, Any] | None:
    """Return rates, ratios, memory and errors of the waveforms of a file, ready for JSON.

    Of several cameras the one with most images is taken; ctapipe processes all of them.

    Parameters
    ----------
    path
        sim_telarray file.
    n_images
        Images of one round, those of the file repeated; ctapipe takes the file once.
    n_rounds
        How often all contestants take turns.
    threads
        Of the cpu backend, 0 = all cores.
    folder
        Where temporary files go; the system's choice if None.

    Returns
    -------
    dict, or None
        None for a file whose cameras have no waveforms.
    """
    from astri_gpu.config import compose
    from astri_gpu.stages import ingest
    from astri_gpu.store import open_store

    with tempfile.TemporaryDirectory(dir=folder, prefix="astri-gpu-benchmark-") as name:
        store_path = Path(name) / "dl0.zarr"
        ingest.run(
            compose(
                "ingest",
                [f"input='{path}'", f"output='{store_path}'", "on_error=keep", "progress=false"],
            )
        )
        store = open_store(store_path)
        cameras = [
            name for name in store.cameras() if "waveform" in store.columns(f"dl0/image/{name}")
        ]
        if not cameras:
            return None
        camera = max(cameras, key=lambda name: store.n_rows(f"dl0/image/{name}"))
        shape = store.array(f"dl0/image/{camera}/waveform").shape[1:]
        contestants: dict[str, tuple[int, Callable[[], Any]]] = {}
        peer = _ctapipe(Path(path))
        if peer:
            contestants[PEER] = peer
        for contestant, n_threads in (("cpu, one thread", 1), ("cpu", threads)):
            call = _ours(store_path, camera, "cpu", n_threads, n_images)
            contestants[contestant] = (n_images, call)
        found = rates(contestants, n_rounds=n_rounds)
        case = run_case(
            "waveforms",
            fresh=False,
            path=str(store_path),
            camera=camera,
            n_images=n_images,
            threads=threads,
        )
        error = _error(store_path, camera, min(n_images, N_COMPARED))
    n_bytes = int(np.prod(shape)) * 2
    return {
        "file": Path(path).name,
        "camera": camera,
        "shape": list(shape),
        "n_images": n_images,
        "rates": {
            name: {
                "images_per_s": rate.median,
                "rounds": rate.rounds,
                "ratio_to_ctapipe": rate.ratio(found[PEER]) if peer else None,
            }
            for name, rate in found.items()
        },
        "bytes": n_bytes,
        "ceiling_images_per_s": read_bytes_per_s() / n_bytes,
        "error": error,
        **case,
    }


def waveform_case(path: str, camera: str, n_images: int, threads: int) -> dict[str, Any]:
    """Return the peak memory of a process that has nothing but the waveforms and our chain."""
    call = _ours(Path(path), camera, "cpu", threads, n_images)
    for _ in range(3):
        call()
    return {"peak_memory_mib": peak_memory_mib()}


def _ours(
    path: Path, name: str, backend: str, threads: int, n_images: int
) -> Callable[[], dict[str, Any]]:
    """Return a function that processes the first images of a store, again and again if few."""
    from astri_gpu.backend import make_backend
    from astri_gpu.config import compose
    from astri_gpu.stages.constants import constants_table
    from astri_gpu.stages.images import calibration_arrays, camera_arrays, image_settings
    from astri_gpu.store import open_store
    from astri_gpu.store_layout import read_layout

    store = open_store(path)
    config = compose("process", ["input=none", "output=none", "experiment=ctapipe"])
    camera = next(camera for camera in read_layout(store).cameras if camera.name == name)
    waveform = store.read(f"dl0/image/{name}/waveform")
    rows = np.arange(n_images) % len(waveform)
    index = store.read(f"dl0/image/{name}/calibration_index")[rows]
    waveform, is_shower = waveform[rows], np.ones(n_images, dtype=np.bool_)
    made = make_backend(backend, threads)
    chain = made.image_chain(
        camera_arrays(camera, config),
        calibration_arrays(constants_table(store, name, camera, config), camera, config)[0],
        image_settings(camera, config),
        n_samples=waveform.shape[3],
        adc_dtype=waveform.dtype,
        dense=False,
    )

    def call() -> dict[str, Any]:
        columns = chain(waveform, index, is_shower).columns
        return {column: made.to_host(values) for column, values in columns.items()}

    return call


def _error(path: Path, camera: str, n_images: int) -> dict[str, Any]:
    """Return the largest relative difference of the loops from the array text."""
    columns = [_ours(path, camera, backend, 0, n_images)() for backend in ("cpu", "numpy")]
    worst, column = worst_difference(*columns)
    return {"worst": worst, "column": column, "n_images": n_images}


def _ctapipe(path: Path) -> tuple[int, Callable[[], None]] | None:
    try:
        from ctapipe.calib import CameraCalibrator
        from ctapipe.image import ImageProcessor
        from ctapipe.io import SimTelEventSource
    except ImportError:
        return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a truncated file
        source = SimTelEventSource(path)
        steps = [make(subarray=source.subarray) for make in (CameraCalibrator, ImageProcessor)]
        # The source hands out a new event each time, so that a list of them can be kept.
        events = list(source)

    def call() -> None:
        for event in events:
            for step in steps:
                step(event)

    return sum(len(event.r1.tel) for event in events), call


if __name__ == "__main__":
    main()
