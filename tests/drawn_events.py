"""Stores of simulated, reconstructed events drawn from known distributions, in milliseconds.

What is known of them: the share of thrown showers that is found (`acceptance`), the errors of
directions (`SIGMA_DEG`, normal in two dimensions) and energies (`SPREAD`, log-normal).
"""

import numpy as np

from astri_gpu.kernels.coordinates import telescope_to_altaz
from astri_gpu.store import create, open_store

SIGMA_DEG = 0.06
SPREAD = 0.12
CONE_DEG = 5.0
SCATTER_M = 800.0
INDEX = -1.8
RANGES = {  # TeV
    "gamma": (0.3, 300.0),
    "proton": (0.5, 300.0),
    "electron": (0.3, 100.0),
    "helium": (1.0, 400.0),
}
PRIMARY = {"gamma": 0, "electron": 1, "proton": 101, "helium": 402}
MODELS = "sha256:" + "1" * 64
MODEL = "Drawn events, of no physical meaning"
N_TELS = 9


def acceptance(energy, offset):
    """Return the share of thrown showers that is triggered and reconstructed."""
    return 0.4 * (1 - np.exp(-energy / 3)) * np.exp(-((offset / 4) ** 2) / 2)


def drawn_store(
    output,
    kind="gamma",
    *,
    point_like=False,
    offset_deg=0.0,
    n_thrown=30_000,
    seed=1,
    zenith_deg=20.0,
    azimuth_deg=0.0,
    cone_deg=CONE_DEG,
    scatter_m=SCATTER_M,
    energies_tev=None,
    index=INDEX,
    models=MODELS,
    cameras=("ASTRICam",),
    header=None,
    attrs=None,
):
    """Return a DL2b store of one kind; every tenth event is triggered only, the others found.

    Parameters
    ----------
    output
        Path of the store.
    kind
        gamma, proton, electron or helium.
    point_like, offset_deg
        All showers from one angle to the pointing, on all sides; otherwise from a cone.
    n_thrown
        Showers, of which `acceptance` are found.
    seed
        Also the number of the observation.
    header, attrs
        Entries of the run header and of the store that are to be different.
    """
    rng = np.random.default_rng([seed, PRIMARY[kind]])
    low, high = energies_tev or RANGES[kind]
    power = index + 1
    energy = (low**power + rng.random(n_thrown) * (high**power - low**power)) ** (1 / power)
    if point_like:
        off = np.full(n_thrown, offset_deg)
    else:
        off = np.rad2deg(np.arccos(1 - rng.random(n_thrown) * (1 - np.cos(np.deg2rad(cone_deg)))))
    shower = np.flatnonzero(rng.random(n_thrown) < acceptance(energy, off) / 0.9)
    energy, off, n = energy[shower], off[shower], len(shower)
    good = rng.random(n) < 0.9
    alt, az = np.full(n, 90.0 - zenith_deg), np.full(n, azimuth_deg)
    angle = rng.uniform(0, 2 * np.pi, n)
    # Great circles from the pointing: the angle to it is `off` exactly.
    lat = np.rad2deg(np.arcsin(np.sin(np.deg2rad(off)) * np.sin(angle)))
    lon = np.rad2deg(np.arctan2(np.sin(np.deg2rad(off)) * np.cos(angle), np.cos(np.deg2rad(off))))
    true = telescope_to_altaz(lon, lat, alt, az)
    error = rng.normal(0, SIGMA_DEG, (2, n)) * (1 if kind in ("gamma", "electron") else 3)
    lon, lat = lon + error[0] / np.cos(np.deg2rad(lat)), lat + error[1]
    found = telescope_to_altaz(lon, lat, alt, az)
    score = rng.beta(5, 1.5, n) if kind in ("gamma", "electron") else rng.beta(1.2, 6, n)
    nan, zero = np.where(good, 1.0, np.nan), np.zeros(n, dtype=np.int64)
    keys = {"obs_id": zero + seed, "event_id": 10 * shower + 1}
    reco_energy = energy * np.exp(rng.normal(0, SPREAD, n))
    n_tels = np.minimum(N_TELS, 2 + rng.poisson(1.5 * np.log10(1 + energy)))
    tables = {
        "dl0/event": {
            **keys,
            "time_s": 1_700_000_000 + np.arange(n),
            "time_ns": zero,
            "event_type": zero + 32,
            "array_alt": alt,
            "array_az": az,
        },
        "simulation/event": {
            **keys,
            "shower_id": shower,
            "true_energy": energy,
            "true_alt": true.alt,
            "true_az": true.az,
            "true_primary_id": zero + PRIMARY[kind],
        },
        "dl2/event": {
            **keys,
            "reco_energy": reco_energy * nan,
            "reco_energy_uncert": 0.1 * reco_energy * nan,
            "gammaness": score * nan,
            "reco_alt": found.alt * nan,
            "reco_az": found.az * nan,
            "reco_fov_lon": lon * nan,
            "reco_fov_lat": lat * nan,
            "reco_direction_uncert": 0.1 * nan,
            "reco_n_tels": np.where(good, n_tels, 0),
            "event_quality": np.where(good, rng.integers(1, 5, n), 0),
            "reco_is_valid": good,
        },
    }
    run = {
        "run_number": seed,
        "energy_range_min": low,
        "energy_range_max": high,
        "spectral_index": index,
        "n_showers": n_thrown // 5,
        "shower_reuse": 5,
        "max_alt": 90.0 - zenith_deg,
        "min_alt": 90.0 - zenith_deg,
        "max_az": azimuth_deg,
        "min_az": azimuth_deg,
        "diffuse": int(not point_like),
        "max_viewcone_radius": offset_deg if point_like else cone_deg,
        "min_viewcone_radius": offset_deg if point_like else 0.0,
        "max_scatter_range": scatter_m,
        "min_scatter_range": 0.0,
        **(header or {}),
    }
    root = {
        "data_level": "DL2b",
        "kind": kind,
        "obs_id": seed,
        "source": "simulation",
        "simulation_model": MODEL,
        "models": {"path": "drawn.skops", "checksum": models},
        "truncated": False,
        "n_events": n,
        "n_images": 0,
        **(attrs or {}),
    }
    with create(output, attrs=root) as writer:
        for path, columns in tables.items():
            writer.table(path, list(columns), sizes={}).append(columns)
        tel = np.arange(N_TELS)
        columns = {
            "tel_id": tel + 1,
            "x": 120.0 * (tel % 3 - 1),
            "y": 250.0 * (tel // 3 - 1),
            "z": 0.0 * tel,
            "camera_index": 0 * tel,
        }
        writer.table("instrument/telescope", list(columns), sizes={}).append(columns)
        writer.set_attrs("instrument/telescope", {"cameras": list(cameras)})
        writer.set_attrs(
            "instrument",
            {
                "name": "drawn array",
                "latitude_deg": 28.3,
                "longitude_deg": -16.506,
                "altitude_m": 2370.0,
            },
        )
        partial = bool((header or {}).get("partial"))
        writer.set_attrs("simulation", {**run, "mc_run_headers": [run], "partial": partial})
    return open_store(output)


def drawn_stores(folder, *, zenith_deg=20.0, seed=1, kinds=("gamma", "proton", "electron")):
    """Return the paths of stores by kind, and of `point`: gammas from 0.5 deg off the pointing.

    Parameters
    ----------
    folder
        Where they are made.
    zenith_deg, seed
        See `drawn_store`; observations are numbered from `seed` on.
    kinds
        Diffuse particles.
    """
    made = {}
    for place, kind in enumerate(kinds):
        path = folder / f"{kind}_{zenith_deg:g}_{seed}.zarr"
        number = 100_000 if kind == "proton" else 60_000
        drawn_store(path, kind, n_thrown=number, seed=seed + place, zenith_deg=zenith_deg)
        made[kind] = path
    path = folder / f"point_{zenith_deg:g}_{seed}.zarr"
    options = {"point_like": True, "offset_deg": 0.5, "zenith_deg": zenith_deg}
    drawn_store(path, "gamma", n_thrown=40_000, seed=seed + len(kinds), **options)
    return {**made, "point": path}
