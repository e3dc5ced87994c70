"""One small production with predictions made up by hand, and its A-SciSoft-like files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from astri_gpu.store import copy_group, create, open_store

CAMERA = "ASTRICam"
SOURCE = (0.3, -0.2)  # deg, assumed by `process`


class Made(NamedTuple):
    """Stores of one production, and files by level (lv1b, lv1c: folders)."""

    dl2a: Path
    dl2b: Path
    files: dict[str, Path]


def with_predictions(path: Path, output: Path) -> None:
    """Write a DL2b store: the DL2a store `path` with numbers in all columns of predictions."""
    from astri_gpu.schema import TABLES

    store, rng = open_store(path), np.random.default_rng(1)
    with create(output, attrs={**store.attrs, "data_level": "DL2b"}) as writer:
        for group in ("instrument", "simulation", "dl0", "dl1", "dl2"):
            copy_group(store, writer, group)
        for table, place in (("dl2/image", f"dl2/image/{CAMERA}"), ("dl2/event", "dl2/event")):
            n_rows = store.n_rows(place)
            missing = rng.random(n_rows) < 0.2
            for name, entry in TABLES[table].items():
                if f"{place}/{name}" in store:
                    continue
                if entry.dtype == "bool":
                    values = ~missing
                elif entry.dtype == "i4":
                    values = np.where(missing, 0, rng.integers(1, 5, n_rows))
                else:
                    values = np.where(missing, np.nan, rng.uniform(0.1, 0.9, n_rows))
                writer.write(place, name, values)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """Return a DL2a store with calibration events, the same as DL2b, and all files of it."""
    from astri_gpu.config import compose
    from astri_gpu.io.astri_fits_export import export_astri
    from astri_gpu.stages import process, simulate

    folder = tmp_path_factory.mktemp("astri_fits")
    dl0, dl2a, dl2b = (folder / f"{name}.zarr" for name in ("dl0", "dl2a", "dl2b"))
    simulated = [
        "production=gamma",
        "shower=draft",
        "spectrum.energy_min_tev=2",
        "view.scatter_radius_m=700",
        "view.cone_max_deg=2",
        "n_showers=150",
        "seed=5",
        "calibration_events.n_pedestal=2",
        "calibration_events.n_flatfield=0",
        "backend=cpu",
        "progress=false",
        f"output='{dl0}'",
    ]
    simulate.run(compose("simulate", simulated))
    processed = [
        f"input='{dl0}'",
        f"output='{dl2a}'",
        f"parameters.source_fov_lon_deg={SOURCE[0]}",
        f"parameters.source_fov_lat_deg={SOURCE[1]}",
        "backend=cpu",
        "progress=false",
    ]
    process.run(compose("process", processed))
    with_predictions(dl2a, dl2b)
    files = {level: folder / f"gamma.{level}" for level in ("lv1b", "lv1c", "lv2a", "lv2b")}
    for level, path in files.items():
        export_astri(dl2b, path, level=level)
    return Made(dl2a, dl2b, files)


@pytest.fixture(scope="session")
def returned(made, tmp_path_factory):
    """Return the stores that are made of the files, by level, and their summaries."""
    from astri_gpu.io.astri_fits_import import ingest_astri

    folder = tmp_path_factory.mktemp("returned")
    return {
        level: ingest_astri(path, folder / f"{level}.zarr") for level, path in made.files.items()
    }


@pytest.fixture
def back(tmp_path):
    """Return a function from a file to the store that is made of it."""
    from astri_gpu.io.astri_fits_import import ingest_astri
    from astri_gpu.io.simtel import IngestOptions

    def ingest(path, **options):
        output = tmp_path / "back.zarr"
        ingest.summary = ingest_astri(path, output, IngestOptions(overwrite=True, **options))
        return open_store(output)

    return ingest
