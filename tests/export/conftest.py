"""Small productions with everything in them, exported for ctapipe: fixtures of several tests."""

from pathlib import Path
from typing import NamedTuple

import pytest


class Exported(NamedTuple):
    """The stages of one production."""

    dl0: Path
    dl2: Path
    file: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Return gammas and protons (with images) and `bare` gammas (without), by name."""
    pytest.importorskip("tables")
    from astri_gpu.config import compose
    from astri_gpu.io.ctapipe_export import export_store
    from astri_gpu.stages import process, simulate

    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for name, options, images in (
        ("gamma", ["production=gamma", "seed=1", "calibration_events.n_pedestal=3"], True),
        ("proton", ["production=proton", "seed=2", "spectrum.energy_min_tev=20"], True),
        ("bare", ["production=gamma", "seed=3"], False),
    ):
        dl0, dl2 = folder / f"{name}_dl0.zarr", folder / f"{name}_dl2.zarr"
        common = ["progress=false"]
        simulate.run(
            compose(
                "simulate",
                [
                    "shower=draft",
                    "spectrum.energy_min_tev=3",
                    "view.scatter_radius_m=300",
                    "view.cone_max_deg=2",
                    f"n_showers={150 if images else 10}",
                    "calibration_events.n_flatfield=0",
                    f"true_images={str(images).lower()}",
                    "backend=cpu",
                    f"output='{dl0}'",
                    *common,
                    *options,
                ],
            )
        )
        process.run(
            compose(
                "process",
                [
                    f"input='{dl0}'",
                    f"output='{dl2}'",
                    f"images={str(images).lower()}",
                    "experiment=ctapipe",
                    "backend=cpu",
                    *common,
                ],
            )
        )
        made[name] = Exported(dl0, dl2, folder / f"{name}.h5")
        export_store(dl2, made[name].file)
    return made
