"""Cuts against pyirf on the same events, and the rules for bins with little in them."""

from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from omegaconf import OmegaConf

from astri_gpu.backend import make_backend
from astri_gpu.config_response import CutsConfig, FluxConfig
from astri_gpu.errors import AstriError
from astri_gpu.selection.cuts import FEW_BACKGROUND, FEW_SIGNAL, NOT_SENSITIVE
from astri_gpu.selection.events import read_sample
from astri_gpu.selection.optimise import energy_edges, optimise, prepare
from astri_gpu.selection.sample import Sample
from astri_gpu.selection.score import WORST_RATIO, cautious_sensitivity, score
from tests.drawn_events import drawn_store

FLUX = FluxConfig()
GRID = {
    "energy_min_tev": 1.0,
    "energy_max_tev": 100.0,
    "bins_per_decade": 3,
    "gammaness_efficiencies": [0.3, 0.6, 0.8],
    "theta_efficiencies": [0.5, 0.7, 0.9],
    "multiplicities": [2, 3],
    "offset_max_deg": 1.0,
    "background_offset_max_deg": 1.0,
}


@pytest.fixture(scope="module")
def backend():
    return make_backend("cpu", 1)


@pytest.fixture(scope="module")
def events(drawn_sample):
    return prepare(drawn_sample, CutsConfig(**GRID), FLUX)


@pytest.mark.parametrize("exposure_h", [50.0, 5000.0])
def test_pyirf_chooses_the_same(events, backend, exposure_h):
    """Without demands on simulated events it is `optimize_cuts`, bit for bit in the cuts."""
    from astropy import units as u
    from astropy.table import QTable
    from pyirf.cut_optimization import optimize_cuts

    options = CutsConfig(**GRID, exposure_h=exposure_h, min_background_events=0, min_gamma_events=0)
    found = optimise(events, options, FLUX, backend)

    def table(part, angle):
        return QTable(
            {
                "reco_energy": part.reco_energy * u.TeV,
                "gh_score": part.gammaness.astype(np.float64),
                angle: part.theta_or_offset * u.deg,
                "multiplicity": part.n_tels,
                "weight": part.weight * exposure_h * 3600,
            }
        )

    sensitivity, multiplicity, theta, gammaness = optimize_cuts(
        table(events.signal, "theta"),
        table(events.background, "reco_source_fov_offset"),
        energy_edges(options) * u.TeV,
        np.array(options.multiplicities),
        np.array(options.gammaness_efficiencies),
        np.array(options.theta_efficiencies),
        fov_offset_min=0 * u.deg,
        fov_offset_max=1 * u.deg,
        alpha=options.alpha,
        progress=False,
    )
    assert found.valid.sum() == 6
    np.testing.assert_array_equal(found.gammaness, gammaness["cut"])
    np.testing.assert_array_equal(found.theta_deg, theta["cut"].to_value("deg"))
    np.testing.assert_array_equal(found.n_tels, multiplicity["cut"])
    np.testing.assert_array_equal(found.gammaness_efficiency, gammaness["efficiency"])
    relative = found.curve["relative_sensitivity"]
    for values, column in (
        (relative, "relative_sensitivity"),
        (relative * found.curve["n_signal"], "n_signal_weighted"),  # of the faintest source
        (found.curve["n_background"] / options.alpha, "n_background_weighted"),  # off
    ):
        np.testing.assert_allclose(values, sensitivity[column], rtol=1e-8, err_msg=column)
    assert len(set(zip(found.gammaness_efficiency, found.theta_efficiency, strict=True))) > 1


def test_selection_by_the_cuts_gives_the_counts(drawn_sample, events, backend):
    """`Cuts.select` and `inside` leave just the events that the optimisation counted."""
    options = CutsConfig(**GRID)
    cuts = optimise(events, options, FLUX, backend)
    point = next(t for t in drawn_sample.of("gamma") if t.point_like)
    kept = cuts.select(point.columns) & cuts.inside(point.columns)
    counts = np.bincount(cuts.bins(point.columns["reco_energy"][kept]), minlength=6)
    np.testing.assert_array_equal(counts, cuts.curve["n_signal_events"])
    in_ring = np.zeros(6)
    for table in drawn_sample.background():
        kept = cuts.select(table.columns) & (table.columns["reco_offset"] < 1.0)
        in_ring += np.bincount(cuts.bins(table.columns["reco_energy"][kept]), minlength=6)
    np.testing.assert_array_equal(in_ring, cuts.curve["n_background_events"])
    assert (in_ring[cuts.flags == 0] >= options.min_background_events).all()


def test_efficiency(drawn_sample, events, backend):
    options = CutsConfig(**GRID, mode="efficiency", gamma_efficiency=0.6, event_class="cc14")
    cuts = optimise(events, options, FLUX, backend)
    assert (cuts.exposure_h, cuts.gamma_efficiency) == (None, 0.6)
    signal = events.signal
    place = cuts.bins(signal.reco_energy)
    for k in np.flatnonzero(cuts.valid):
        scores = signal.gammaness[(place == k) & (signal.n_tels >= 2)]
        assert np.mean(scores >= cuts.gammaness[k]) == pytest.approx(0.6, abs=1 / len(scores))


def test_point_like_gammas_first_else_diffuse(drawn_sample):
    near = prepare(drawn_sample, CutsConfig(offset_max_deg=1.0), FLUX)
    far = prepare(drawn_sample, CutsConfig(offset_min_deg=2.0, offset_max_deg=3.0), FLUX)
    point = next(t for t in drawn_sample.of("gamma") if t.point_like)
    diffuse = next(t for t in drawn_sample.of("gamma") if not t.point_like)
    offset = diffuse.columns["true_offset"]
    assert len(near.signal.weight) == len(point)
    assert len(far.signal.weight) == ((offset >= 2) & (offset < 3)).sum()
    assert (far.signal.weight > 0).all()


@pytest.fixture(scope="module")
def thin(drawn_sample):
    """Return the sample with no gammas above 30 TeV and no background from 3 to 10 TeV."""
    tables = []
    for table in drawn_sample:
        energy = table.columns["reco_energy"]
        keep = energy < 30 if table.kind == "gamma" else (energy < 3.1) | (energy > 10)
        tables.append(table.rows(keep))
    return Sample(tuple(tables), drawn_sample.meta)


def test_bins_with_little_in_them(thin, backend):
    """No gammas: NaN. No background: the loosest cut, flagged, and not believed by the score."""
    options = CutsConfig(**{**GRID, "bins_per_decade": 2})
    cuts = optimise(thin, options, FLUX, backend)
    np.testing.assert_array_equal(cuts.flags & FEW_SIGNAL, [0, 0, 0, FEW_SIGNAL])
    assert np.isnan([cuts.gammaness[3], cuts.theta_deg[3], cuts.curve["n_signal"][3]]).all()
    assert cuts.flags[1] & FEW_BACKGROUND
    assert (cuts.gammaness_efficiency[1], cuts.n_tels[1]) == (0.8, 2)
    assert cuts.valid_range_tev == pytest.approx((1.0, 10**1.5))
    cautious = cautious_sensitivity(cuts)
    assert np.isfinite(cuts.curve["sensitivity"][1])
    assert np.isnan(cautious[[1, 3]]).all()
    assert np.isfinite(cautious[0])


def test_no_detection(events, backend):
    """A source that is too weak for any flux: the point with most gammas, flagged."""
    signal = events.signal._replace(weight=np.zeros_like(events.signal.weight))
    none = prepare_like(events, signal)
    cuts = optimise(none, CutsConfig(**GRID), FLUX, backend)
    assert (cuts.flags & NOT_SENSITIVE == NOT_SENSITIVE).all()
    assert np.isinf(cuts.curve["relative_sensitivity"]).all()
    assert score(cuts) == pytest.approx(np.log10(WORST_RATIO))
    assert score(cuts, "energy_min") == pytest.approx(3)


def prepare_like(events, signal):
    return replace(events, signal=signal, _placed=None)


def test_score_by_hand(events, backend):
    from astri_gpu.responses.references import published_sensitivity

    cuts = optimise(events, CutsConfig(**GRID, min_background_events=0), FLUX, backend)
    ratio = cuts.curve["sensitivity"] / published_sensitivity(cuts.energy_edges)
    want = np.mean(np.log10(np.minimum(ratio[np.isfinite(ratio)], WORST_RATIO)))
    assert score(cuts) == pytest.approx(want)
    # The same with one bin less counts a hundred there.
    without = replace(cuts, curve={k: v.copy() for k, v in cuts.curve.items()})
    without.curve["sensitivity"][2] = np.nan
    number = np.isfinite(ratio).sum()
    moved = (np.log10(WORST_RATIO) - np.log10(min(ratio[2], WORST_RATIO))) / number
    assert score(without) == pytest.approx(want + moved)


def test_score_of_a_short_exposure_still_tells_apart(events, backend):
    """Sensitivities of minutes are far above the published one of 50 h, and not all the worst."""
    scores = [
        score(optimise(events, CutsConfig(**GRID, exposure_h=exposure), FLUX, backend))
        for exposure in (0.5, 0.05, 0.005)
    ]
    assert np.log10(WORST_RATIO) > scores[0]
    assert scores[0] + 0.5 < scores[1] < scores[2] - 0.5


def test_score_is_cautious_with_few_background_events(events, backend):
    """As many events as were asked for, of the same weight, make the sensitivity worse."""
    cuts = optimise(events, CutsConfig(**GRID, min_background_events=0), FLUX, backend)
    asked = replace(cuts, meta={**cuts.meta, "options": {"cuts": {**cuts.meta["options"]["cuts"]}}})
    asked.meta["options"]["cuts"]["min_background_events"] = 10_000
    seen = cuts.curve["n_background_events"] > 0
    assert seen.any()
    worse = cautious_sensitivity(asked) / cautious_sensitivity(cuts)
    assert (worse[seen] > 1.2).all()
    assert np.isnan(worse[~seen]).all()


@pytest.mark.parametrize(
    "name", sorted(f"cc0{k}" for k in range(5)) + [f"cc1{k}" for k in range(8)]
)
def test_classes_are_those_of_astri(name):
    """Exposures and shares of the classes that ASTRI's DL3 files name."""
    text = (resources.files("astri_gpu.configs") / "cuts" / f"{name}.yaml").read_text()
    cuts = CutsConfig(**OmegaConf.to_container(OmegaConf.create(text)))
    assert cuts.event_class == name
    number = int(name[-1])
    if name < "cc10":
        assert (cuts.mode, cuts.exposure_h) == ("sensitivity", pytest.approx(0.05 * 10**number))
    else:
        share = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3][number]
        assert (cuts.mode, cuts.gamma_efficiency) == ("efficiency", share)


def test_all_classes_are_there():
    folder = resources.files("astri_gpu.configs") / "cuts"
    names = {entry.name.removesuffix(".yaml") for entry in folder.iterdir()}
    assert names == {*(f"cc0{k}" for k in range(5)), *(f"cc1{k}" for k in range(8))}


def test_samples_that_do_not_do(drawn_sample, tmp_path, backend):
    only = {
        kind: Sample(tuple(t for t in drawn_sample if (t.kind == "gamma") == (kind == "gamma")))
        for kind in ("gamma", "others")
    }
    with pytest.raises(AstriError, match="no background to cut against"):
        prepare(only["gamma"], CutsConfig(), FLUX)
    with pytest.raises(AstriError, match="There are no gammas"):
        prepare(only["others"], CutsConfig(), FLUX)
    with pytest.raises(AstriError, match=r"came from 6 to 7 deg off the pointing"):
        prepare(drawn_sample, CutsConfig(offset_min_deg=6.0, offset_max_deg=7.0), FLUX)
    drawn_store(tmp_path / "low.zarr", "gamma", n_thrown=500, zenith_deg=60.0)
    other = read_sample([tmp_path / "low.zarr"])
    mixed = Sample((*drawn_sample.tables, *other.tables), drawn_sample.meta)
    with pytest.raises(AstriError, match=r"2 pointings .*zenith 20 deg.*low.zarr at zenith 60 deg"):
        prepare(mixed, CutsConfig(), FLUX)
