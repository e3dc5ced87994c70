"""Stores of made-up events for the report."""

import numpy as np
import pytest

from astri_gpu.instrument.astri import mini_array
from astri_gpu.progress import Progress
from astri_gpu.reconstruction.apply import EVENT_COLUMNS, TELESCOPE_COLUMNS
from astri_gpu.report.collect import collect
from astri_gpu.schema import TABLES
from astri_gpu.store import create
from astri_gpu.store_layout import write_layout

MODEL = "Fast model for a test."
CAMERA = "ASTRICam"
RADIUS = 500.0
THROWN = 20_000
FORESTS = {*EVENT_COLUMNS, *TELESCOPE_COLUMNS}
IMPORTANCES = {"hillas_width": 0.25, "log10(hillas_intensity)": 0.125}
DTYPES = {"f": np.nan, "i": -1, "u": 0, "b": False}


def rows_of(table, n_rows, values):
    """Return all columns of a table of scalars, those that are not given empty.

    Columns that only forests make are left out unless they are given.
    """
    columns = {}
    for name, entry in TABLES[table].items():
        if len(entry.dims) == 1 and (name in values or name not in FORESTS):
            filler = DTYPES[np.dtype(entry.dtype).kind]
            columns[name] = np.asarray(values.get(name, np.full(n_rows, filler)), entry.dtype)
    return columns


def write_table(writer, path, table, n_rows, values, sizes):
    columns = {**rows_of(table, n_rows, values)}
    columns.update({name: data for name, data in values.items() if name not in columns})
    writer.table(path, list(columns), sizes=sizes).append(columns)


def models_attr(checksum="sha256:" + "a" * 64):
    """Return what `reconstruct` says of its models, as short as possible."""
    task = {"features": list(IMPORTANCES), "importances": IMPORTANCES}
    return {
        "path": "somewhere/forests.skops",
        "checksum": checksum,
        "filter": "hillas_intensity > 50",
        "cameras": {CAMERA: {"image": {"energy": task}, "stereo": {}}},
        "array": {"gammaness": task},
        "training": {
            "counts": {"gamma": {"images": 1234, "events": 567}},
            "provenance": {"inputs": [{"path": "old.zarr", "checksum": "sha256:old"}]},
        },
    }


def _reconstructed(rng, kind, energy, per_event, shower):
    """Return the columns of forests for events: errors, scores and quarters that are made up.

    Every twentieth event has none, and neither has the pedestal.
    """
    n_events = len(energy)
    valid = shower & (np.arange(n_events) % 20 != 7)
    quality = rng.integers(1, 5, n_events)

    def direction(scale):
        error, angle = scale * rng.rayleigh(size=n_events), rng.uniform(0, 2 * np.pi, n_events)
        return (
            70 + error * np.cos(angle),
            error * np.sin(angle) / np.cos(np.deg2rad(70)),
        )

    merged, disp = direction(0.03 * quality), direction(0.1 * quality)
    estimate = energy * np.exp(rng.normal(0.03, 0.1 * quality))
    columns = {
        "reco_energy": estimate,
        "reco_energy_uncert": 0.1 * quality * estimate,
        "gammaness": rng.beta(*((4, 1) if kind == "gamma" else (1, 2)), n_events),
        "reco_alt": merged[0],
        "reco_az": merged[1],
        "disp_alt": disp[0],
        "disp_az": disp[1],
        "reco_direction_uncert": 0.03 * 1.51 * quality,
    }
    columns = {name: np.where(valid, values, np.nan) for name, values in columns.items()}
    columns["reco_n_tels"] = np.where(valid, per_event, 0)
    columns["event_quality"] = np.where(valid, quality, 0)
    return {**columns, "reco_is_valid": valid}


def _make_store(
    path,
    kind,
    seed,
    *,
    n_events=400,
    thrown=True,
    charges=False,
    cone=0.0,
    model=True,
    models=None,
    source="new",
    pointing_alt=70.0,
):
    """Write a DL2a store of made-up events on the built-in array; the truth is where zenith is 20.

    The first event is a pedestal with images, which no number of the report may count. With
    `models`, what the attribute of that name holds, it is a DL2b store, made from the store of
    checksum `source`.
    """
    rng = np.random.default_rng(seed)
    layout = mini_array()
    n_tel, n_pixels = layout.n_telescopes, layout.cameras[0].geometry.n_pixels
    sizes = {"tel": n_tel, "pixel": n_pixels}
    energy = 10 ** rng.uniform(-0.5, 2, n_events)
    error = 0.08 * rng.rayleigh(size=n_events) / energy**0.25
    angle = rng.uniform(0, 2 * np.pi, n_events)
    core = rng.uniform(-200, 200, (2, n_events))
    per_event = rng.integers(1, n_tel + 1, n_events)
    valid = per_event > 1
    shower = np.arange(n_events) > 0
    n_images = int(per_event.sum())
    event_index = np.repeat(np.arange(n_events), per_event)
    tel_id = np.concatenate([np.sort(rng.permutation(n_tel)[:n]) + 1 for n in per_event])
    keys = {"event_index": event_index, "tel_id": tel_id}
    events = {"obs_id": np.full(n_events, 7), "event_id": np.arange(n_events)}
    intensity = 10 ** rng.normal(2.5, 0.4, n_images)
    intensity[rng.random(n_images) < 0.1] = np.nan
    images = {
        **keys,
        "hillas_intensity": intensity,
        "hillas_length": rng.gamma(4, 0.1, n_images),
        "hillas_width": rng.gamma(20, 0.006 if kind == "gamma" else 0.009, n_images),
        "astri_conc": rng.beta(2, 8, n_images),
        "hillas_fov_lon": rng.normal(0, 1, n_images),
        "hillas_fov_lat": rng.normal(0, 1, n_images),
        "hillas_psi": rng.uniform(-90, 90, n_images),
    }
    if charges:
        charge = rng.normal(0, 1, (n_images, n_pixels)).astype(np.float32)
        charge[:, 1000:1010] += 20
        images.update(charge=charge, mask=charge > 10)
    alt = 70 + error * np.cos(angle)
    az = error * np.sin(angle) / np.cos(np.deg2rad(70))
    attrs = {"data_level": "DL2a", "kind": kind, "n_events": n_events, "n_images": n_images}
    if model:
        attrs["simulation_model"] = MODEL
    reconstructed = {}
    if models is not None:
        inputs = [{"path": f"{path.stem}_dl2a.zarr", "checksum": f"sha256:{source}"}]
        attrs.update(data_level="DL2b", models=models, provenance={"inputs": inputs})
        reconstructed = _reconstructed(rng, kind, energy, per_event, shower)
        score = rng.beta(*((3, 1) if kind == "gamma" else (1, 2)), n_images)
        tel_valid = intensity > 50
        tel_score = np.where(tel_valid, score, np.nan)
    with create(path, attrs=attrs) as writer:
        write_layout(writer, layout)
        pointing = {"array_alt": np.full(n_events, pointing_alt), "array_az": np.zeros(n_events)}
        write_table(
            writer,
            "dl0/event",
            "dl0/event",
            n_events,
            {
                **events,
                **pointing,
                "event_type": np.where(shower, 32, 2),
                "tel_mask": np.ones((n_events, n_tel), bool),
            },
            sizes,
        )
        where = {"pointing_alt": np.full(n_images, 70.0), "pointing_az": np.zeros(n_images)}
        write_table(
            writer,
            f"dl0/image/{CAMERA}",
            "dl0/image",
            n_images,
            {**keys, **where},
            sizes,
        )
        write_table(writer, f"dl1/image/{CAMERA}", "dl1/image", n_images, images, sizes)
        write_table(
            writer,
            "dl2/event",
            "dl2/event",
            n_events,
            {
                **events,
                "stereo_is_valid": valid,
                "stereo_alt": np.where(valid, alt, np.nan),
                "stereo_az": np.where(valid, az, np.nan),
                "stereo_core_x": np.where(valid, core[0] + 30 * error, np.nan),
                "stereo_core_y": core[1],
                "stereo_n_tels": per_event,
                **reconstructed,
            },
            sizes,
        )
        if reconstructed:
            scores = {**keys, "tel_gammaness": tel_score, "tel_is_valid": tel_valid}
            write_table(writer, f"dl2/image/{CAMERA}", "dl2/image", n_images, scores, sizes)
        write_table(
            writer,
            "simulation/event",
            "simulation/event",
            n_events,
            {
                **events,
                "true_energy": np.where(shower, energy, np.nan),
                "true_alt": np.where(shower, 70.0, np.nan),
                "true_az": np.where(shower, 0.0, np.nan),
                "true_core_x": core[0],
                "true_core_y": core[1],
            },
            sizes,
        )
        writer.set_attrs(
            "simulation",
            {
                "energy_range_min": 10**-0.5,
                "energy_range_max": 100.0,
                "spectral_index": -1.0,
                "max_scatter_range": RADIUS,
                "min_scatter_range": 0.0,
                "max_viewcone_radius": cone,
                "min_viewcone_radius": 0.0,
                "n_showers": THROWN,
                "shower_reuse": 1,
                "min_alt": 70.0,
                "partial": False,
            },
        )
        if thrown:
            edges = np.geomspace(1e-3, 1e3, 121)
            counts = np.zeros((2, 120))
            counts[:, 50:100] = THROWN / 100
            writer.write("simulation/thrown", "histogram", counts)
            writer.write("simulation/thrown", "energy_edges", edges)
            writer.write("simulation/thrown", "core_distance_edges", [0, 250, RADIUS])
    return path


@pytest.fixture(scope="session")
def make_store():
    return _make_store


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dl2")
    return {
        "gamma": _make_store(folder / "gamma.zarr", "gamma", 1, charges=True, n_events=60),
        "more": _make_store(folder / "gamma_2.zarr", "gamma", 2),
        "proton": _make_store(folder / "proton.zarr", "proton", 3, cone=6.0),
        "gamma_reco": _make_store(
            folder / "gamma_reco.zarr", "gamma", 6, models=models_attr(), pointing_alt=68.8
        ),
        "proton_reco": _make_store(folder / "proton_reco.zarr", "proton", 7, models=models_attr()),
        "unknown": _make_store(folder / "unknown.zarr", "gamma", 4, thrown=False, model=False),
    }


@pytest.fixture(scope="session")
def collected():
    """Return a function from stores to samples."""
    return lambda *paths: collect(paths, Progress(None, "", ""))
