"""Exported showers with energies in the tools that make instrument response functions of them."""

import numpy as np
import pytest

from astri_gpu.io.ctapipe_export import export_store
from astri_gpu.kernels.coordinates import telescope_to_altaz
from astri_gpu.store import copy_group, create, open_store

pytestmark = [
    pytest.mark.peers,
    # Warnings of ctapipe, pyirf and astropy are theirs.
    pytest.mark.filterwarnings("ignore"),
]

ALT, AZ, CONE = 70.0, 180.0, 4.0  # deg
RANGE, INDEX, SCATTER = (1.0, 200.0), -2.0, 600.0  # TeV, m
N_TELS = 4


def production(like, output, *, gamma, n_events, seed):
    """Return a store of showers that all trigger the first four telescopes.

    Energies follow E^-2 from 1 to 200 TeV, directions are even over a cone of 4 deg. Those of
    gammas are found to 0.05 deg and 10 %; a third of the events are not reconstructed.
    """
    rng = np.random.default_rng(seed)
    low, high = RANGE
    energy = low / (1 - rng.random(n_events) * (1 - low / high))  # of E^-2
    off = np.rad2deg(np.arccos(1 - rng.random(n_events) * (1 - np.cos(np.deg2rad(CONE)))))
    angle = rng.uniform(0, 2 * np.pi, n_events)
    lon, lat = off * np.cos(angle), off * np.sin(angle)
    true = telescope_to_altaz(lon, lat, np.full(n_events, ALT), np.full(n_events, AZ))
    lon, lat = (part + rng.normal(0, 0.05, n_events) for part in (lon, lat))
    found = telescope_to_altaz(lon, lat, np.full(n_events, ALT), np.full(n_events, AZ))
    good = rng.random(n_events) < 2 / 3
    score = rng.beta(4, 1.5, n_events) if gamma else rng.beta(1.5, 4, n_events)
    event = np.repeat(np.arange(n_events), N_TELS)
    tel = np.tile(np.arange(1, N_TELS + 1), n_events)
    camera = like.cameras("dl1")[0]
    mask = np.zeros((n_events, like.n_rows("instrument/telescope")), dtype=bool)
    mask[:, :N_TELS] = True
    keys = {"obs_id": np.full(n_events, seed), "event_id": np.arange(1, n_events + 1)}
    image_keys = {"event_index": event, "tel_id": tel}
    ones, images = np.ones(n_events), np.ones(len(event))
    zero = np.zeros(n_events, dtype=np.int64)
    energy_found = energy * np.exp(rng.normal(0, 0.1, n_events))
    nan = np.where(good, 1.0, np.nan)
    tables = {
        "dl0/event": {
            **keys,
            "time_s": 1_700_000_000 + np.arange(n_events),
            "time_ns": zero,
            "event_type": zero + 32,
            "array_alt": ALT * ones,
            "array_az": AZ * ones,
            "tel_mask": mask,
        },
        f"dl0/image/{camera}": {
            **image_keys,
            "pointing_alt": ALT * images,
            "pointing_az": AZ * images,
            "trigger_time_ns": 0 * images,
            "n_trigger_pixels": 0 * tel - 1,
        },
        f"dl1/image/{camera}": {
            **image_keys,
            "hillas_intensity": 100 * images,
            "hillas_width": 0.1 * images,
            "morphology_n_pixels": 0 * tel + 10,
            "leakage_intensity_width_2": 0 * images,
        },
        "simulation/event": {
            **keys,
            "shower_id": np.arange(n_events),
            "true_energy": energy,
            "true_alt": true.alt,
            "true_az": true.az,
            **dict.fromkeys(("true_core_x", "true_core_y"), 0 * ones),
            **dict.fromkeys(("true_h_first_int", "true_x_max"), 300 * ones),
            "true_starting_grammage": 0 * ones,
            "true_primary_id": zero + (0 if gamma else 101),
        },
        f"simulation/image/{camera}": {
            **image_keys,
            "true_image_sum": 0 * tel + 100,
            "true_impact_distance": 100 * images,
        },
        "dl2/event": {
            **keys,
            "stereo_alt": found.alt * nan,
            "stereo_az": found.az * nan,
            "stereo_core_x": 0 * nan,
            "stereo_core_y": 0 * nan,
            "stereo_n_tels": np.where(good, N_TELS, 0),
            "stereo_is_valid": good,
            "reco_energy": energy_found * nan,
            "gammaness": score * nan,
            "reco_alt": found.alt * nan,
            "reco_az": found.az * nan,
            "reco_n_tels": np.where(good, N_TELS, 0),
            "event_quality": np.where(good, rng.integers(1, 5, n_events), 0),
            "reco_is_valid": good,
        },
        f"dl2/image/{camera}": {
            **image_keys,
            "stereo_impact_distance": 100 * images,
            "tel_is_valid": good[event],
        },
    }
    header = {
        **like.group_attrs("simulation"),
        "energy_range_min": low,
        "energy_range_max": high,
        "spectral_index": INDEX,
        "n_showers": n_events,
        "shower_reuse": 1,
        "max_viewcone_radius": CONE,
        "min_viewcone_radius": 0.0,
        "max_scatter_range": SCATTER,
        "diffuse": 1,
    }
    attrs = {
        "data_level": "DL2b",
        "kind": "gamma" if gamma else "proton",
        "obs_id": seed,
        "source": "drawn",
        "n_events": n_events,
        "n_images": len(event),
    }
    with create(output, attrs=attrs) as writer:
        copy_group(like, writer, "instrument")
        for path, columns in tables.items():
            writer.table(path, list(columns), sizes={"tel": mask.shape[1]}).append(columns)
        writer.set_attrs("simulation", {**header, "mc_run_headers": [header]})
    return open_store(output)


@pytest.fixture(autouse=True)
def _peers(peers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # ctapipe's tools write their provenance log here


@pytest.fixture(scope="module")
def produced(exported, tmp_path_factory):
    """Return the stores of drawn gammas and protons, and their files."""
    folder = tmp_path_factory.mktemp("produced")
    like = open_store(exported["bare"].dl2)
    made = {}
    for seed, name in enumerate(("gamma", "proton"), start=1):
        store = production(
            like, folder / f"{name}.zarr", gamma=name == "gamma", n_events=12_000, seed=seed
        )
        export_store(store.path, folder / f"{name}.h5")
        made[name] = store, folder / f"{name}.h5"
    return made


ENERGIES = np.geomspace(*RANGE, 6)  # TeV, the edges that ctapipe makes of the options below
OFFSETS = np.linspace(0, CONE, 3)
BINS = {
    "DefaultRecoEnergyBins": {
        "reco_energy_min": "1 TeV",
        "reco_energy_max": "200 TeV",
        "reco_energy_n_bins_per_decade": 2,
    },
    "DefaultTrueEnergyBins": {
        "true_energy_min": "1 TeV",
        "true_energy_max": "200 TeV",
        "true_energy_n_bins_per_decade": 2,
    },
    "DefaultFoVOffsetBins": {
        "fov_offset_min": "0 deg",
        "fov_offset_max": f"{CONE} deg",
        "fov_offset_n_bins": 2,
    },
}
# What we call our own, instead of the names that ctapipe looks for unless it is told otherwise.
OURS = {
    "DL2EventPreprocessor": {
        "geometry_reconstructor": "AstriReconstructor",
        "DL2EventQualityQuery": {
            "quality_criteria": [
                (
                    "four telescopes",
                    "RandomForestRegressor_telescopes.sum(axis=1) > 3",
                ),
                ("valid", "AstriReconstructor_is_valid"),
                ("better half", "AstriReconstructor_goodness_of_fit <= 2"),
            ]
        },
    }
}


def tool(module, cls, config, *arguments):
    """Run one of ctapipe's tools in this process; raise where it fails."""
    from importlib import import_module

    from ctapipe.core import run_tool
    from traitlets.config import Config

    made = getattr(import_module(f"ctapipe.tools.{module}"), cls)()
    made.update_config(Config(config))
    run_tool(made, argv=[str(word) for word in (*arguments, "--log-level=ERROR")], raises=True)


@pytest.mark.parametrize("config", [{}, OURS], ids=["defaults", "ours"])
def test_cuts_and_responses(produced, tmp_path, config):
    """Both tools run, and the effective area is that of a count by hand."""
    from astropy.io import fits

    files = [f"--{name}-file={file}" for name, (_, file) in produced.items()]
    cuts, irf, benchmarks = (tmp_path / f"{name}.fits" for name in ("cuts", "irf", "benchmark"))
    config = {**BINS, **config}
    tool("optimize_event_selection", "EventSelectionOptimizer", config, *files, f"--output={cuts}")
    with fits.open(cuts) as hdus:
        limits = hdus["GH_CUTS"].data
        assert np.isfinite(limits["cut"]).all()
        assert limits["low"][0] == pytest.approx(RANGE[0])
        assert len(limits) == 5
    output = f"--output={irf}", f"--benchmark-output={benchmarks}"
    tool("compute_irf", "IrfTool", config, *files, f"--cuts={cuts}", *output)

    gamma = produced["gamma"][0]
    rows = gamma.read_table("dl2/event") | gamma.read_table("simulation/event")
    good = rows["stereo_is_valid"]
    if "DL2EventPreprocessor" in config:
        good = good & (rows["event_quality"] <= 2)
    energy = rows["reco_energy"]
    good = good & (energy >= RANGE[0]) & (energy < RANGE[1])  # no limits elsewhere
    place = np.clip(np.digitize(energy, ENERGIES) - 1, 0, len(limits) - 1)
    good &= rows["gammaness"] >= limits["cut"][place]
    offset = separation(rows["true_alt"], rows["true_az"], ALT, AZ)
    selected, _, _ = np.histogram2d(
        rows["true_energy"][good], offset[good], bins=(ENERGIES, OFFSETS)
    )
    spectrum = np.diff(1 / ENERGIES) / np.diff(1 / np.array(RANGE))
    cone = np.diff(np.cos(np.deg2rad(OFFSETS))) / (np.cos(np.deg2rad(CONE)) - 1)
    thrown = gamma.n_rows("dl0/event") * spectrum[:, None] * cone
    with fits.open(irf) as hdus:
        area = hdus["EFFECTIVE AREA"].data[0]
        np.testing.assert_allclose(area["ENERG_LO"], ENERGIES[:-1], rtol=1e-6)
        want = np.pi * SCATTER**2 * selected / thrown
        np.testing.assert_allclose(area["EFFAREA"].T, want, rtol=1e-5)
        assert want.min() > 0
        for name in ("ENERGY DISPERSION", "PSF", "BACKGROUND"):
            assert np.isfinite(hdus[name].data[0][-1]).all()
        assert hdus["BACKGROUND"].data[0]["BKG"].max() > 0
    with fits.open(benchmarks) as hdus:
        found = hdus["ANGULAR RESOLUTION"].data[0]
    many = found["N_EVENTS"] > 200
    assert many.sum() > 1
    # Of a normal distribution in two dimensions, 0.05 deg wide.
    want = 0.05 * np.sqrt(-2 * np.log(1 - 0.68))
    np.testing.assert_allclose(found["ANGULAR_RESOLUTION_68"][many], want, rtol=0.15)


def separation(alt1, az1, alt2, az2):
    """Return the angle between directions, deg."""
    first, second, turn = (np.deg2rad(value) for value in (alt1, alt2, az1 - az2))
    cos = np.sin(first) * np.sin(second) + np.cos(first) * np.cos(second) * np.cos(turn)
    return np.rad2deg(np.arccos(np.clip(cos, -1, 1)))
