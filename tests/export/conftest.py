"""Small productions with everything in them, exported for ctapipe: fixtures of several tests."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from astri_gpu.kernels.coordinates import altaz_to_telescope, telescope_to_altaz
from astri_gpu.store import copy_group, create, open_store


class Exported(NamedTuple):
    """The stages of one production."""

    dl0: Path
    dl2: Path
    file: Path
    warnings: tuple[str, ...] = ()


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
        file = folder / f"{name}.h5"
        made[name] = Exported(dl0, dl2, file, export_store(dl2, file).warnings)
    return made


@pytest.fixture(scope="session")
def reconstructed(exported, tmp_path_factory):
    """Return the gammas with energies, scores and directions drawn at random, and their file."""
    from astri_gpu.io.ctapipe_export import export_store

    folder = tmp_path_factory.mktemp("reconstructed")
    store = drawn(open_store(exported["gamma"].dl2), folder / "gamma.zarr")
    summary = export_store(store.path, folder / "gamma.h5", images=False)
    return Exported(exported["gamma"].dl0, store.path, folder / "gamma.h5", summary.warnings)


def drawn(store, output, seed=1):
    """Return a copy of a DL2a store with results drawn at random, some images without any.

    Its configuration is that of another stage than `process`, as after `reconstruct`.
    """
    rng = np.random.default_rng(seed)
    array = store.read_table("dl0/event", ["array_alt", "array_az"])
    n_events = store.n_rows("dl2/event")
    previous = {"stage": "reconstruct", "previous": store.attrs["provenance"]}
    attrs = {**store.attrs, "data_level": "DL2b", "config": {"model": "x"}, "provenance": previous}
    with create(output, attrs=attrs) as writer:
        for group in ("instrument", "dl0", "dl1", "dl2", "simulation"):
            copy_group(store, writer, group)
        n_used = np.zeros(n_events, dtype=np.int64)
        for camera in store.cameras("dl1"):
            event = store.read(f"dl1/image/{camera}/event_index")
            good = (rng.random(len(event)) < 0.8) & (event % 7 > 0)
            n_used += np.bincount(event[good], minlength=n_events)
            columns = _image_results(rng, len(event), good)
            table = writer.table(f"dl2/image/{camera}", list(columns), sizes={})
            table.append(columns)
        columns = _event_results(rng, n_used, array["array_alt"], array["array_az"])
        writer.table("dl2/event", list(columns), sizes={}).append(columns)
    return open_store(output)


def _image_results(rng, n_images, good):
    disp = rng.uniform(0, 2, n_images)
    angle = rng.uniform(0, 2 * np.pi, n_images)
    columns = {
        "tel_energy": 10 ** rng.uniform(0, 2, n_images),
        "tel_energy_uncert": rng.uniform(0.1, 1, n_images),
        "tel_gammaness": rng.random(n_images),
        "tel_disp": disp,
        "tel_disp_sign": rng.uniform(0.001, 0.999, n_images),
        "tel_disp_uncert": rng.uniform(0.01, 0.2, n_images),
        "tel_disp_fov_lon": disp * np.cos(angle),
        "tel_disp_fov_lat": disp * np.sin(angle),
    }
    columns = {name: np.where(good, values, np.nan) for name, values in columns.items()}
    return {**columns, "tel_is_valid": good}


def _event_results(rng, n_used, array_alt, array_az):
    n_events, good = len(n_used), n_used > 0
    lon, lat = rng.normal(0, 1, (2, n_events))
    merged = telescope_to_altaz(lon, lat, array_alt, array_az)
    disp = telescope_to_altaz(lon + 0.1, lat, array_alt, array_az)
    place = altaz_to_telescope(merged.alt, merged.az, array_alt, array_az)
    columns = {
        "mean_energy": 10 ** rng.uniform(0, 2, n_events),
        "mean_gammaness": rng.random(n_events),
        "disp_alt": disp.alt,
        "disp_az": disp.az,
        "reco_energy": 10 ** rng.uniform(0, 2, n_events),
        "reco_energy_uncert": rng.uniform(0.1, 1, n_events),
        "gammaness": rng.random(n_events),
        "reco_alt": merged.alt,
        "reco_az": merged.az,
        "reco_fov_lon": place.fov_lon,
        "reco_fov_lat": place.fov_lat,
        "reco_direction_uncert": rng.uniform(0.01, 0.3, n_events),
    }
    columns = {name: np.where(good, values, np.nan) for name, values in columns.items()}
    quality = np.where(good, rng.integers(1, 5, n_events), 0)
    return {**columns, "reco_n_tels": n_used, "event_quality": quality, "reco_is_valid": good}
