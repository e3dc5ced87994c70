"""Reading of events: columns, tables, and everything that is refused."""

import numpy as np
import pytest

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.selection.events import read_sample
from astri_gpu.selection.sample import COLUMNS
from astri_gpu.store import open_store
from tests.drawn_events import CONE_DEG, MODEL, MODELS, SCATTER_M, SIGMA_DEG, drawn_store


def test_columns_are_those_of_the_stores(drawn, drawn_sample):
    """Every column equals what is in the store, or follows from it in another way."""
    table = next(t for t in drawn_sample.of("gamma") if not t.point_like)
    store = open_store(drawn["gamma"])
    rows = store.read_table("dl2/event") | store.read_table("simulation/event")
    good = rows["reco_is_valid"]
    assert len(table) == good.sum() < len(good)
    assert {name: part.dtype.str[1:] for name, part in table.columns.items()} == {
        name: kind for name, (kind, _, _) in COLUMNS.items()
    }
    for name, column in (
        ("reco_energy", "reco_energy"),
        ("true_energy", "true_energy"),
        ("gammaness", "gammaness"),
        ("n_tels", "reco_n_tels"),
        ("quality", "event_quality"),
    ):
        np.testing.assert_array_equal(table.columns[name], rows[column][good])
    rows = {name: part[good] for name, part in rows.items()}
    theta = angular_separation(rows["reco_az"], rows["reco_alt"], rows["true_az"], rows["true_alt"])
    np.testing.assert_allclose(table.columns["theta"], theta, atol=1e-9)
    np.testing.assert_allclose(table.columns["fov_lon"], rows["reco_fov_lon"], atol=1e-5)
    np.testing.assert_allclose(table.columns["fov_lat"], rows["reco_fov_lat"], atol=1e-5)
    alt = np.full(len(table), 70.0)
    offset = angular_separation(rows["true_az"], rows["true_alt"], 0 * alt, alt)
    np.testing.assert_allclose(table.columns["true_offset"], offset, atol=1e-9)
    assert table.columns["true_offset"].max() <= CONE_DEG + 1e-9
    # Rayleigh: 39 % of a normal distribution in two dimensions are within sigma.
    assert np.mean(table.columns["theta"] < SIGMA_DEG) == pytest.approx(0.393, abs=0.03)


def test_tables_and_their_origin(drawn_sample):
    assert [(t.kind, t.point_like, len(t.thrown)) for t in drawn_sample] == [
        ("gamma", False, 1),
        ("gamma", True, 1),
        ("proton", False, 1),
        ("electron", False, 1),
    ]
    assert drawn_sample.pointings() == [(20.0, 0.0)]
    assert {t.thrown[0].max_impact_m for t in drawn_sample} == {SCATTER_M}
    assert drawn_sample.meta["simulation_model"] == MODEL
    assert drawn_sample.meta["models"] == MODELS
    assert drawn_sample.meta["cameras"] == ["ASTRICam"]
    keys = np.concatenate([t.columns["shower_key"] for t in drawn_sample])
    assert len(np.unique(keys)) == len(keys)


def test_parts_are_disjoint_and_all_together(drawn):
    whole = read_sample([drawn["point"]])
    parts = [read_sample([drawn["point"]], part=part) for part in ("even", "odd")]
    assert [next(iter(part)).part for part in (whole, *parts)] == [1.0, 0.5, 0.5]
    keys = [next(iter(part)).columns["shower_key"] for part in (whole, *parts)]
    assert not set(keys[1]) & set(keys[2])
    assert set(keys[0]) == set(keys[1]) | set(keys[2])
    assert min(map(len, keys[1:])) > 0.4 * len(keys[0])


def test_filter(drawn):
    table = next(iter(read_sample([drawn["point"]], filter="reco_n_tels > 2 and gammaness < 0.9")))
    whole = next(iter(read_sample([drawn["point"]])))
    want = (whole.columns["n_tels"] > 2) & (whole.columns["gammaness"] < 0.9)
    assert len(table) == want.sum() > 0


def test_stores_of_one_kind_are_added(tmp_path, drawn):
    other = tmp_path / "more.zarr"
    drawn_store(other, "proton", n_thrown=1000, seed=77, index=-2.0)
    table = next(iter(read_sample([drawn["proton"], other])))
    assert len(table.thrown) == 2
    assert sum(entry.n_showers for entry in table.thrown) == 101_000


def test_pointings_are_apart_and_azimuths_go_round(tmp_path, drawn):
    other = tmp_path / "high.zarr"
    drawn_store(other, "gamma", n_thrown=500, zenith_deg=40.0, azimuth_deg=359.999)
    sample = read_sample([drawn["gamma"], other])
    assert sample.pointings() == [(20.0, 0.0), (40.0, 0.0)]
    assert len(list(sample.at((40.0, 0.0)))) == 1


def test_a_store_without_events(tmp_path):
    drawn_store(tmp_path / "a.zarr", "gamma", n_thrown=5, energies_tev=(1e-4, 2e-4))
    (table,) = read_sample([tmp_path / "a.zarr"])
    assert len(table) == 0
    assert (table.zenith_deg, table.thrown[0].n_showers) == (20.0, 5)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ({"attrs": {"data_level": "DL2a"}}, None, "DL2a store.*run `astri-gpu reconstruct`"),
        ({"attrs": {"data_level": "DL0"}}, None, "`astri-gpu process, train and reconstruct`"),
        ({"attrs": {"kind": "muon"}}, None, "muon events, for which there is no spectrum"),
        ({"attrs": {"truncated": True}}, None, "a part of its production"),
        ({"header": {"partial": True}}, None, "a part of its production"),
        ({"header": {"n_showers": 0}}, None, "n_showers times shower_reuse is 0"),
        ({"header": {"spectral_index": None}}, None, "spectral_index of its run header is None"),
        ({"header": {"energy_range_max": 0.1}}, None, "energy_range_max minus.* has to be above 0"),
        ({"header": {"max_viewcone_radius": 2.0}}, None, "run header says 0 to 2 deg"),
        ({}, {}, "hold observation 1: the same showers would count twice"),
        ({}, {"seed": 2, "models": "sha256:abc"}, "reconstruct all with one file of models"),
        ({}, {"seed": 2, "cameras": ["LSTCam"]}, "a.zarr has ASTRICam, .*b.zarr has LSTCam"),
        ({}, {"seed": 2, "attrs": {"simulation_model": "CORSIKA"}}, "has program 'CORSIKA'"),
        ({}, {"seed": 2, "cone_deg": 3.0}, "cone 0 to 3 deg.* thrown in different ways"),
        ({}, {"seed": 2, "scatter_m": 900.0}, "within 900 m.* thrown in different ways"),
        ({}, {"kind": "proton", "point_like": True}, "no flux from all sides"),
    ],
)
def test_stores_that_do_not_do(tmp_path, first, second, text):
    paths = []
    for name, options in (("a", first), ("b", second)):
        if options is not None:
            paths.append(tmp_path / f"{name}.zarr")
            drawn_store(paths[-1], **{"n_thrown": 500, **options})
    with pytest.raises(AstriError, match=text):
        read_sample(paths)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"filter": "true_energy > 1"}, "must not use true_energy"),
        ({"filter": "reco_n_tel > 1"}, "no column of dl2/event, did you mean 'reco_n_tels'"),
        ({"filter": "stereo_h_max > 1"}, "which .* does not have"),
        ({"filter": "reco_n_tels"}, "cuts.filter: .* this is a number"),
        ({"need": ("gamma", "background")}, "There is no background among the 1 stores"),
        ({"need": ("proton",)}, "There is no proton"),
    ],
)
def test_requests_that_cannot_be(drawn, options, text):
    with pytest.raises((AstriError, UsageError), match=text):
        read_sample([drawn["point"]], **options)


def test_other_telescopes(tmp_path, drawn):
    """An array of the same size in another place is another array."""
    import tests.drawn_events as draws

    before, draws.N_TELS = draws.N_TELS, 5
    try:
        drawn_store(tmp_path / "five.zarr", "proton", n_thrown=500)
    finally:
        draws.N_TELS = before
    with pytest.raises(AstriError, match=r"has 9 telescopes, .* has 5 telescopes"):
        read_sample([drawn["gamma"], tmp_path / "five.zarr"])


def test_no_simulation(tmp_path, drawn):
    with pytest.raises(UsageError, match="no stores to read"):
        read_sample([])
    with pytest.raises(AstriError, match="There is no store"):
        read_sample([tmp_path / "none.zarr"])
