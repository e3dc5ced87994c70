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

from astri_gpu.backend import make_backend
from astri_gpu.config import compose
from astri_gpu.stages import ingest
from astri_gpu.stages.constants import constants_table
from astri_gpu.stages.images import calibration_arrays, camera_arrays, image_settings
from astri_gpu.store import Store, open_store
from astri_gpu.store_layout import read_layout

from .machine import describe, slug
from .timing import rates

N_IMAGES = 400  # of one round: the images of the file, repeated
N_ROUNDS = 7


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waveforms", description=__doc__)
    parser.add_argument("file", type=Path, help="sim_telarray file with waveforms")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dl0.zarr"
        ingest.run(
            compose(
                "ingest",
                [f"input='{options.file}'", f"output='{path}'", "on_error=keep", "progress=false"],
            )
        )
        store = open_store(path)
        camera = max(store.cameras(), key=lambda name: store.n_rows(f"dl0/image/{name}"))
        shape = store.array(f"dl0/image/{camera}/waveform").shape
        contestants = {"ctapipe": _ctapipe(options.file)}
        for threads in (1, 0):
            name = "cpu, one thread" if threads else "cpu"
            contestants[name] = (N_IMAGES, _ours(store, camera, threads))
        found = rates(contestants, n_rounds=N_ROUNDS)
    lines = [
        "# Waveforms",
        f"{machine['date']}, revision {machine['revision']}, {machine['processor']}, "
        f"{machine['cores']} cores; {camera} images of (gain, pixel, sample) = {shape[1:]} from "
        f"{options.file.name}, default processing of ctapipe, in memory.",
        "| who | images/s | ratio to ctapipe |\n|---|---:|---:|\n"
        + "\n".join(
            f"| {name} | {rate.median:,.0f} | {rate.ratio(found['ctapipe']):.1f} |"
            for name, rate in found.items()
        ),
    ]
    text = "\n\n".join(lines) + "\n"
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{slug(machine)}-waveforms.md").write_text(text)


def _ours(store: Store, name: str, threads: int) -> Callable[[], Any]:
    config = compose("process", ["input=none", "output=none", "experiment=ctapipe"])
    camera = next(camera for camera in read_layout(store).cameras if camera.name == name)
    waveform = store.read(f"dl0/image/{name}/waveform")
    rows = np.arange(N_IMAGES) % len(waveform)
    index = store.read(f"dl0/image/{name}/calibration_index")[rows]
    waveform, is_shower = waveform[rows], np.ones(N_IMAGES, dtype=np.bool_)
    chain = make_backend("cpu", threads).image_chain(
        camera_arrays(camera, config),
        calibration_arrays(constants_table(store, name, camera, config), camera, config)[0],
        image_settings(camera, config),
        n_samples=waveform.shape[3],
        adc_dtype=waveform.dtype,
        dense=False,
    )
    return lambda: chain(waveform, index, is_shower)


def _ctapipe(path: Path) -> tuple[int, Callable[[], None]]:
    from ctapipe.calib import CameraCalibrator
    from ctapipe.image import ImageProcessor
    from ctapipe.io import SimTelEventSource

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
