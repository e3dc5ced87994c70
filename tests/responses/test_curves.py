"""Performance curves against pyirf, NumPy and what is known of drawn events."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.config import compose
from astri_gpu.errors import UsageError
from astri_gpu.responses import curve_values
from astri_gpu.responses.curve_points import KINDS, Curves
from astri_gpu.responses.curve_tables import write_curves
from astri_gpu.responses.curve_values import Ordered, binned_sums, bootstrap, draw, place_in
from astri_gpu.responses.curves import make_curves, ratio_curve, ratio_lines
from astri_gpu.responses.references import (
    published_sensitivity,
    published_table,
    read_reference,
)
from astri_gpu.selection.sample import Sample
from astri_gpu.selection.weights import rates
from tests.drawn_events import MODEL, SIGMA_DEG
from tests.made_responses import gammapy_part

CTAO = "irf/Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
OFFSETS = (0.0, 1.0)  # of gammas
RING = (0.0, 2.5)  # of background
ROOT = Path(__file__).resolve().parents[2]


def irf_config(**changes):
    words = [f"{name}={value}" for name, value in changes.items()]
    return compose("irf", ["input=x", "cut_files=y", "output=z", *words])


@pytest.fixture(scope="module")
def config():
    return irf_config(n_bootstrap=40, exposures_h="[5,50]")


@pytest.fixture(scope="module")
def curves(sample, cuts, config):
    return make_curves(sample, [cuts], config)


def only(curves, kind, **labels):
    (curve,) = curves.of(kind, **labels)
    return curve


def point_gammas(sample):
    (table,) = (table for table in sample.of("gamma") if table.point_like)
    return table


def qtable(columns, *names):
    from astropy import units as u
    from astropy.table import QTable

    unit = {"theta": u.deg, "reco_offset": u.deg, "reco_energy": u.TeV, "true_energy": u.TeV}
    return QTable({name: columns[name] * unit[name] for name in names})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.integers(0, 3)),
        max_size=30,
    ),
    st.sampled_from([0.0, 0.16, 0.5, 0.6827, 0.95, 1.0]),
)
def test_quantiles_are_those_of_repeated_values(events, share):
    place, values, times = (np.array([event[k] for event in events]) for k in range(3))
    place, times = place.astype(np.int64), times.astype(np.uint8)
    found = Ordered(place, values.astype(float), 4).quantiles(times[None], [share])[0, 0]
    for k in range(4):
        inside = np.repeat(values[place == k], times[place == k])
        expected = np.quantile(inside, share) if len(inside) else np.nan
        np.testing.assert_allclose(found[k], expected, atol=1e-12)


def test_bins_are_closed_below_and_open_above():
    place = place_in(np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 2.0, 3.0, np.nan]))
    np.testing.assert_array_equal(place, [-1, 0, 1, -1, -1])


def test_errors_of_sums_are_those_of_weighted_counts(sample):
    (table,) = sample.of("proton")
    events = draw(table, n_replicas=400, seed=3)
    weight = np.random.default_rng(1).exponential(1, len(table))
    place = np.zeros(len(table), dtype=np.int64)
    found = bootstrap(lambda times: {"sum": binned_sums(place, weight, times[0], 1)}, [events])
    # Uses of a shower come together, but the drawn events use each shower once.
    sigma = np.sqrt((weight**2).sum())
    width = (found["sum"].high - found["sum"].low) / 2
    assert found["sum"].value[0] == pytest.approx(weight.sum())
    assert width[0] == pytest.approx(sigma, rel=0.15)
    order = np.random.default_rng(2).permutation(len(table))
    turned = draw(table.rows(order), n_replicas=5, seed=3)
    np.testing.assert_array_equal(turned.times, events.times[:5, order])


def test_replicas_that_give_infinity_are_the_largest(sample):
    events = draw(sample.of("proton")[0].rows(np.arange(3)), n_replicas=10, seed=1)
    result = np.array([[1.0, 1.0, np.nan]] + [[1.0, np.inf, np.nan]] * 9)

    def measure(times):
        return {"x": np.array([[1.0, 2.0, np.nan]]) if len(times[0]) == 1 else result}

    found = bootstrap(measure, [events])["x"]
    assert found.low[0] == found.high[0] == 1
    assert np.isinf(found.high[1])
    assert np.isnan(found.low[2])
    assert np.isnan(found.high[2])


def test_numbers_that_do_not_fit_into_memory_are_refused(sample, monkeypatch):
    monkeypatch.setattr(curve_values, "MOST_NUMBERS", 100_000)
    with pytest.raises(UsageError, match=r"n_bootstrap is 1000, which is .* give at most"):
        draw(sample.of("proton")[0], n_replicas=1000, seed=1)


@pytest.mark.parametrize("axis", ["true", "reco"])
def test_resolutions_are_those_of_pyirf(sample, cuts, curves, axis):
    from astropy import units as u
    from pyirf.benchmarks import angular_resolution, energy_bias_resolution

    table = point_gammas(sample)
    columns = table.rows(cuts.select(table.columns)).columns
    edges = cuts.energy_edges * u.TeV
    events = qtable(columns, "theta", "true_energy", "reco_energy")
    angle = angular_resolution(events, edges, axis, [0.6826894921370859, 0.95])
    found = only(curves, "angular_resolution", axis=f"{axis}_energy")
    for name, column in (("radius_68", "68"), ("radius_95", "95")):
        expected = angle[f"angular_resolution_{column}"].to_value("deg")
        np.testing.assert_allclose(found.values[name].value, expected, rtol=1e-9)
    np.testing.assert_array_equal(found.counts["n_events"], angle["n_events"])
    energy = energy_bias_resolution(events, edges, axis)
    found = only(curves, "energy_resolution", axis=f"{axis}_energy")
    for name in ("bias", "resolution"):
        np.testing.assert_allclose(found.values[name].value, energy[name], rtol=1e-9, atol=1e-12)


def test_containment_of_drawn_directions(curves):
    angle = only(curves, "angular_resolution", axis="true_energy").values["radius_68"]
    expected = SIGMA_DEG * np.sqrt(-2 * np.log(1 - 0.6826894921370859))
    use = np.isfinite(angle.value) & (angle.high > angle.low)
    pull = (angle.value - expected)[use] / ((angle.high - angle.low)[use] / 2)
    assert use.sum() >= 9
    assert np.abs(pull).max() < 5
    assert np.abs(pull.mean()) < 1.5


def test_effective_areas_are_those_of_pyirf(sample, cuts, curves):
    from astropy import units as u
    from pyirf.irf import effective_area_per_energy
    from pyirf.simulations import SimulatedEventsInfo

    table = point_gammas(sample)
    (thrown,) = table.thrown
    info = SimulatedEventsInfo(
        n_showers=thrown.n_showers,
        energy_min=thrown.energy_min_tev * u.TeV,
        energy_max=thrown.energy_max_tev * u.TeV,
        max_impact=thrown.max_impact_m * u.m,
        spectral_index=thrown.spectral_index,
        viewcone_min=0 * u.deg,
        viewcone_max=0 * u.deg,
    )
    passed = cuts.select(table.columns)
    for name, use in (
        ("reconstructed", np.ones(len(table), dtype=bool)),
        ("after the cuts but theta", passed),
        ("after all cuts", passed & cuts.inside(table.columns)),
    ):
        events = qtable(table.rows(use).columns, "true_energy")
        expected = effective_area_per_energy(events, info, cuts.energy_edges * u.TeV)
        found = only(curves, "effective_area", selection=name)
        np.testing.assert_allclose(
            found.values["area"].value, expected.to_value("m2"), rtol=1e-6, err_msg=name
        )


def pyirf_sensitivity(sample, cuts, hours):
    """Return the table of pyirf for the same events, without the bin that has no cut."""
    from astropy import units as u
    from astropy.table import QTable, vstack
    from pyirf.binning import create_histogram_table
    from pyirf.sensitivity import calculate_sensitivity, estimate_background

    from astri_gpu.config_response import FluxConfig

    edges = cuts.energy_edges[:-1] * u.TeV
    table = point_gammas(sample)
    source = table.rows(cuts.select(table.columns) & cuts.inside(table.columns))
    seconds = hours * 3600
    signal = qtable(source.columns, "reco_energy")
    signal["weight"] = rates(source, FluxConfig(), offsets_deg=OFFSETS) * seconds
    kept = [t.rows(cuts.select(t.columns)) for t in sample.background()]
    background = [qtable(t.columns, "reco_energy", "reco_offset") for t in kept]
    for events, t in zip(background, kept, strict=True):
        events["weight"] = rates(t, FluxConfig()) * seconds
        events.rename_column("reco_offset", "reco_source_fov_offset")
    centre = (edges[:-1] + edges[1:]) / 2
    theta = QTable({"center": centre, "cut": cuts.theta_deg[:-1] * u.deg})
    off = estimate_background(vstack(background), edges, theta, 0.2, *(RING * u.deg))
    return calculate_sensitivity(create_histogram_table(signal, edges), off, alpha=0.2)


@pytest.mark.parametrize("hours", [5.0, 50.0])
def test_sensitivity_is_that_of_pyirf(sample, cuts, curves, hours):
    expected = pyirf_sensitivity(sample, cuts, hours)
    found = only(curves, "sensitivity", exposure_h=hours)
    relative = found.values["relative"]
    assert np.isnan(relative.value[-1])
    reached = np.asarray(expected["relative_sensitivity"])
    known = np.isfinite(reached)
    assert known.sum() >= 6
    np.testing.assert_allclose(relative.value[:-1][known], reached[known], rtol=1e-9)
    np.testing.assert_array_equal(
        found.counts["n_signal_events"][:-1][known],
        np.rint(np.asarray(expected["n_signal"] / reached)[known]),
    )
    energy = found.centres
    crab = 2.83e-11 * energy**-2.62  # TeV-1 s-1 cm-2, Aharonian et al. 2004
    np.testing.assert_allclose(found.values["flux"].value, relative.value * crab, rtol=1e-9)
    np.testing.assert_allclose(
        found.values["flux_e2"].value, relative.value * crab * energy**2 * 1.602176634, rtol=1e-9
    )
    use = np.isfinite(relative.low + relative.high)
    assert use.sum() >= 6
    assert (relative.low[use] <= relative.high[use]).all()


def test_background_of_kinds_adds_up_and_is_that_of_the_sensitivity(sample, cuts, curves):
    parts = [only(curves, "background_rate", particle=name) for name in ("proton", "electron")]
    every = only(curves, "background_rate", particle="all")
    total = sum(part.values["rate"].value for part in parts)
    np.testing.assert_allclose(every.values["rate"].value, total, rtol=1e-12)
    found = only(curves, "sensitivity", exposure_h=50.0).counts
    np.testing.assert_allclose(found["n_background"], total * 50 * 3600, rtol=1e-12)
    cut = np.deg2rad(cuts.theta_deg)
    expected = (
        every.values["intensity"].value
        * np.diff(cuts.energy_edges)
        * (2 * np.pi * (1 - np.cos(cut)))
    )
    np.testing.assert_allclose(every.values["rate"].value, expected, rtol=1e-9)
    # A rate of zero has an upper end, and says that no event is behind it.
    empty = (every.counts["n_events"] == 0) & cuts.valid
    assert (every.values["rate"].value[empty] == 0).all()
    assert not (every.values["rate"].high[empty] <= 0).any()


@pytest.mark.parametrize("kinds", [("gamma", "proton"), ("gamma", "proton", "electron")])
def test_background_of_which_nothing_is_left_is_not_believed(sample, cuts, config, kinds):
    # No proton of the drawn stores has such a score, but electrons have.
    strict = replace(cuts, gammaness=np.where(cuts.valid, 0.9, np.nan))
    chosen = Sample(tuple(table for table in sample if table.kind in kinds), sample.meta)
    found = make_curves(chosen, [strict], config)
    protons = only(found, "background_rate", particle="proton")
    curve = only(found, "sensitivity", exposure_h=50.0)
    known = np.isfinite(protons.values["rate"].high)
    none = (protons.counts["n_events"] == 0) & (curve.counts["n_signal_events"] > 20) & known
    assert none.any()
    assert (protons.values["rate"].value[none] == 0).all()
    assert (protons.values["rate"].high[none] > 0).all()
    every = only(found, "background_rate", particle="all").values["rate"]
    assert (every.high[none] >= protons.values["rate"].high[none]).all()
    relative = curve.values["relative"]
    assert (relative.high[none] > relative.value[none]).all()
    assert (curve.counts["few_events"][none] == 1).all()
    if "electron" in kinds:
        assert (curve.counts["n_background_events"][none] > 0).any()
    else:
        assert (curve.counts["n_background_worth"][none] == 0).all()


def test_where_nothing_is_left_the_sensitivity_is_infinite_and_not_zero(sample, cuts, config):
    closed = replace(cuts, gammaness=np.where(cuts.valid, 1.01, np.nan))
    found = make_curves(sample, [closed], config)
    curve = only(found, "sensitivity", exposure_h=50.0)
    assert np.isposinf(curve.values["flux_e2"].value[cuts.valid]).all()
    assert np.isnan(curve.values["flux_e2"].value[~cuts.valid]).all()
    angle = only(found, "angular_resolution", axis="reco_energy").values["radius_68"]
    assert np.isnan(angle.value).all()
    assert ratio_lines(found)  # no number of it is finite, none of them fails to be printed


def test_offsets_follow_the_acceptance(curves):
    bands = curves.of("offset")
    assert len(bands) == 2
    for curve in bands:
        np.testing.assert_allclose(curve.edges, np.arange(6))
        relative = curve.values["relative"]
        # `acceptance` falls with the offset, signal and background alike.
        assert relative.value[-1] > relative.value[0]
        angle = curve.values["radius_68"].value
        np.testing.assert_allclose(angle, SIGMA_DEG * 1.515, rtol=0.15)
        assert curve.counts["n_events"].sum() > 100


def test_diffuse_gammas_give_the_curves_of_point_like_ones(sample, cuts, config, curves):
    diffuse = Sample(tuple(t for t in sample if not t.point_like), sample.meta)
    config = replace(config, n_bootstrap=0)
    parts = [
        only(made, "sensitivity", exposure_h=50.0).counts
        for made in (make_curves(diffuse, [cuts], config), curves)
    ]
    signal = [np.nansum(part["n_signal"]) for part in parts]
    events = [part["n_signal_events"].sum() for part in parts]
    assert min(events) > 30
    # Weights differ between bins, so the error is somewhat above that of the number.
    assert abs(np.log(signal[0] / signal[1])) < 4 * np.sqrt(sum(1 / np.array(events)))


def test_cuts_of_the_nearest_zenith_are_applied(sample, cuts, config):
    far = replace(cuts, meta={**cuts.meta, "zenith_deg": 60.0}, gammaness=cuts.gammaness + 0.2)
    found = make_curves(sample, [far, cuts], replace(config, n_bootstrap=0))
    curve, same = (
        only(made, "effective_area", selection="after all cuts").values["area"].value
        for made in (found, make_curves(sample, [cuts], replace(config, n_bootstrap=0)))
    )
    np.testing.assert_array_equal(curve, same)


def test_without_replicas_there_are_no_errors(sample, cuts, config):
    found = make_curves(sample, [cuts], replace(config, n_bootstrap=0))
    angle = only(found, "angular_resolution", axis="true_energy").values["radius_68"]
    assert np.isfinite(angle.value).any()
    assert np.isnan(angle.low).all()


def test_curves_are_the_same_every_time(sample, cuts, config, curves):
    again = make_curves(sample, [cuts], config)
    other = make_curves(sample, [cuts], replace(config, seed=7))
    pair = [only(c, "sensitivity", exposure_h=50.0).values["flux"] for c in (curves, again, other)]
    np.testing.assert_array_equal(pair[0].high, pair[1].high)
    assert not np.array_equal(pair[0].high, pair[2].high, equal_nan=True)
    np.testing.assert_array_equal(pair[0].value, pair[2].value)


def test_published_sensitivity():
    energy, flux = published_table()
    edges = 10 ** np.arange(-0.5, 2.71, 0.2)
    found = published_sensitivity(edges)
    inside = np.isfinite(found)
    assert inside.sum() == len(energy) == 13
    np.testing.assert_allclose(found[inside], flux, rtol=0.03)
    middle = np.sqrt(edges[:-1] * edges[1:])
    np.testing.assert_allclose(middle[inside], energy, rtol=0.025)
    for outside in ([0.01, 0.02], [500.0, 900.0]):
        assert np.isnan(published_sensitivity(np.array(outside))).all()


def test_ratio_to_the_published_sensitivity(curves, cuts):
    curve = ratio_curve(curves)
    assert curve.labels["exposure_h"] == 50.0
    expected = curve.values["flux_e2"].value / published_sensitivity(cuts.energy_edges)
    np.testing.assert_allclose(curve.values["ratio"].value, expected)
    other = only(curves, "sensitivity", exposure_h=5.0)
    assert np.isnan(other.values["ratio"].value).all()
    lines = ratio_lines(curves)
    known = np.isfinite(expected).sum()
    assert known >= 5
    assert len(lines) == 2 + np.sum(~np.isnan(expected))
    assert "cc03" in lines[0]
    assert f"{curve.centres[0]:8.3g}" in lines[2]
    assert ratio_lines(Curves(tuple(curves.of("sensitivity", exposure_h=5.0)))) == []


def test_reference_of_ctao(shared_data, config, cuts):
    edges = 10 ** np.arange(-0.5, 2.31, 0.2)
    found = read_reference(shared_data / CTAO, edges, config)
    middle = np.sqrt(edges[:-1] * edges[1:])
    (angle,) = found.of("angular_resolution")
    # The file's 68 % containment: 3.4, 2.0 and 1.3 arc minutes at 1, 10 and 100 TeV.
    at = [int(np.argmin(np.abs(np.log(middle / energy)))) for energy in (1, 10, 100)]
    radius = angle.values["radius_68"].value[at] * 60
    np.testing.assert_allclose(radius, [3.4, 2.0, 1.3], atol=0.1)
    (long,) = found.of("sensitivity", exposure_h=50.0)
    (short,) = found.of("sensitivity", exposure_h=5.0)
    ratio = short.values["flux_e2"].value / long.values["flux_e2"].value
    # Ten times the flux where ten events decide, at least sqrt(10) where background does.
    use = np.isfinite(ratio)
    assert ((ratio[use] > 3.1) & (ratio[use] < 10.001)).all()
    assert ratio[use][-1] == pytest.approx(10)
    # The observatory states 1e-13 to 2e-13 erg s-1 cm-2 at 1 to 10 TeV for 50 h.
    flux = long.values["flux_e2"].value[(middle > 0.9) & (middle < 11)]
    assert ((flux > 5e-14) & (flux < 3e-13)).all()
    assert "68 % containment" in found.note
    assert found.name == "CTAO South prod5 (14MSTs37SSTs)"


def test_rates_of_a_reference_are_those_of_gammapy(shared_data, config):
    gammapy = gammapy_part("gammapy.irf")
    from astropy import units as u

    edges = 10 ** np.arange(-0.5, 1.91, 0.2)
    path = shared_data / CTAO
    found = read_reference(path, edges, config)
    irfs = gammapy.load_irf_dict_from_file(path)
    (rate,) = found.of("background_rate")
    middle = rate.centres
    density = irfs["bkg"].evaluate(energy=middle * u.TeV, fov_lon=0.5 * u.deg, fov_lat=0 * u.deg)
    # The mean over the bin against the value in its middle.
    np.testing.assert_allclose(
        rate.values["intensity"].value, density.to_value("TeV-1 s-1 sr-1").ravel(), rtol=0.35
    )
    (area,) = found.of("effective_area")
    expected = irfs["aeff"].evaluate(energy_true=middle * u.TeV, offset=0.5 * u.deg)
    np.testing.assert_allclose(area.values["area"].value, expected.to_value("m2"), rtol=1e-6)


def test_tables_hold_every_bin_with_units(tmp_path, curves, cuts):
    from astropy.table import Table

    names = write_curves(tmp_path, curves, provenance={"stage": "irf"})
    assert set(names) == {f"{kind}.ecsv" for kind in KINDS} | {"curves.json"}
    table = Table.read(tmp_path / "sensitivity.ecsv")
    assert len(table) == 2 * len(cuts.gammaness)
    assert table["flux_e2"].unit.is_equivalent("erg s-1 cm-2")
    assert table.meta["simulation_model"] == MODEL
    assert table.meta["provenance"] == {"stage": "irf"}
    rows = table[table["exposure_h"] == 50.0]
    curve = only(curves, "sensitivity", exposure_h=50.0)
    np.testing.assert_array_equal(rows["flux_e2"], curve.values["flux_e2"].value)
    np.testing.assert_allclose(rows["reco_energy_low"], cuts.energy_edges[:-1])
    table = Table.read(tmp_path / "angular_resolution.ecsv")
    assert set(table["axis"]) == {"true_energy", "reco_energy"}
    for name in KINDS:
        for column in Table.read(tmp_path / f"{name}.ecsv").itercols():
            assert column.description


def test_json_keeps_what_is_infinite_apart_from_what_is_not_known(tmp_path, sample, cuts, config):
    closed = replace(cuts, gammaness=np.where(cuts.valid, 1.01, np.nan))
    write_curves(tmp_path, make_curves(sample, [closed], replace(config, n_bootstrap=0)))

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    record = json.loads((tmp_path / "curves.json").read_text(), parse_constant=refuse)
    curve = next(c for c in record["curves"] if c["kind"] == "sensitivity")
    flux = curve["values"]["flux_e2"]["value"]
    assert flux[0] == "inf"
    assert flux[-1] is None
    assert record["simulation_model"] == MODEL
    assert len(record["published"]["energy_tev"]) == 13


def test_rows_of_the_benchmark_are_those_of_the_curve(tmp_path, curves, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # benchmarks are no installed package
    benchmark = importlib.import_module("benchmarks.sensitivity")
    write_curves(tmp_path, curves)
    rows = benchmark.ratio_table(json.loads((tmp_path / "curves.json").read_text()))
    curve = ratio_curve(curves)
    ratio = curve.values["ratio"].value
    known = ~np.isnan(ratio)
    expected = [value if np.isfinite(value) else "inf" for value in ratio[known]]
    assert [row["value"] for row in rows] == expected
    np.testing.assert_allclose([row["energy_tev"] for row in rows], curve.centres[known])
