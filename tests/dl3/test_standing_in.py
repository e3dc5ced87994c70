"""Simulated events that stand in for an observation: rates, directions, times, seeds."""

import numpy as np
import pytest

from astri_gpu.config_response import FluxConfig, ObservationConfig
from astri_gpu.dl3.gti import inside
from astri_gpu.dl3.run import passes
from astri_gpu.dl3.sky import to_altaz, to_centre, to_icrs, utc_text
from astri_gpu.dl3.standing_in import Plan, standing_in
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.events import read_sample
from astri_gpu.selection.sample import Sample
from astri_gpu.selection.weights import rates
from tests.drawn_events import drawn_store


def plan_of(sample, *, farthest=5.0, **changes):
    config = ObservationConfig(**({"n_runs": 1, "duration_s": 60.0} | changes))
    return Plan(sample, config, FluxConfig(), farthest=farthest)


def diffuse(sample):
    return Sample(tuple(t for t in sample if not t.point_like), sample.meta)


@pytest.fixture(scope="module")
def run(sample):
    return standing_in(plan_of(sample, duration_s=400.0, dead_time=0.2), 0)


def of(run, primary):
    return run.rows(run.columns["primary"] == primary).columns


def origin(sample, columns, kind):
    """Return the simulated events that were drawn, row by row."""
    tables = sorted(sample.of(kind), key=lambda table: not table.point_like)
    table = tables[0]  # point-like gammas where there are any
    order = np.argsort(table.columns["shower_key"], kind="stable")
    keys = table.columns["shower_key"][order]
    assert len(np.unique(keys)) == len(keys)
    return table.rows(order[np.searchsorted(keys, columns["shower_key"])]).columns


@pytest.mark.parametrize("gammas", ["point-like", "diffuse"])
def test_gammas_keep_their_error_of_direction(sample, run, gammas):
    if gammas == "diffuse":
        run = standing_in(plan_of(diffuse(sample), duration_s=400.0), 0)
    drawn = of(run, 0)
    assert len(drawn["time"]) > 50
    sky = to_icrs(drawn["alt"], drawn["az"], drawn["time"], run.site)
    theta, _ = to_centre(sky.ra, sky.dec, run.target.ra_deg, run.target.dec_deg)
    tables = diffuse(sample) if gammas == "diffuse" else sample
    simulated = origin(tables, drawn, "gamma")
    # Aberration shrinks or stretches angles in ICRS by up to the speed of the Earth over c.
    np.testing.assert_allclose(theta, simulated["theta"], rtol=1.1e-4, atol=1e-9)
    np.testing.assert_array_equal(drawn["reco_energy"], simulated["reco_energy"])


def test_errors_keep_their_side_of_the_pointing(sample, run):
    """Towards the pointing and away from it are different for real images, and so is the left."""
    drawn = of(run, 0)
    simulated = origin(sample, drawn, "gamma")
    target = to_altaz(run.target.ra_deg, run.target.dec_deg, drawn["time"], run.site)
    looked = drawn["pointing_az"], drawn["pointing_alt"]

    def side(there, centre, pointing):
        found = to_centre(*there, *centre)[1] - to_centre(*pointing, *centre)[1]
        return (found + 180) % 360 - 180

    zero = np.zeros(len(drawn["time"]))
    ours = side((drawn["az"], drawn["alt"]), (target.az, target.alt), looked)
    theirs = side(
        (simulated["fov_lon"], simulated["fov_lat"]),
        (simulated["true_fov_lon"], simulated["true_fov_lat"]),
        (zero, zero),
    )
    np.testing.assert_allclose((ours - theirs + 180) % 360 - 180, 0, atol=1e-3)


def test_background_keeps_its_distance_and_is_turned(sample, run):
    drawn = of(run, 101)
    assert len(drawn["time"]) > 300
    distance, angle = to_centre(
        drawn["az"], drawn["alt"], drawn["pointing_az"], drawn["pointing_alt"]
    )
    simulated = origin(sample, drawn, "proton")
    np.testing.assert_allclose(distance, simulated["reco_offset"], atol=1e-7)
    turn = np.deg2rad(angle)
    assert np.hypot(np.cos(turn).mean(), np.sin(turn).mean()) < 4 / np.sqrt(len(turn))


def test_times_are_even_and_in_order(run):
    times = run.columns["time"]
    assert (np.diff(times) >= 0).all()
    assert inside(times, run.gti).all()
    middle = (times.mean() - run.start) / (run.stop - run.start)
    assert abs(middle - 0.5) < 4 / np.sqrt(12 * len(times))
    assert run.livetime == pytest.approx(0.8 * 400)
    assert run.columns["event_id"].tolist() == list(range(1, len(run) + 1))


def test_counts_are_those_of_the_rates(sample):
    plan = plan_of(sample, n_runs=12, duration_s=60.0, dead_time=0.5)
    counts = np.array(
        [
            [np.count_nonzero(r.columns["primary"] == kind) for kind in (0, 101)]
            for r in (standing_in(plan, number) for number in range(12))
        ]
    )
    point = next(t for t in sample.of("gamma") if t.point_like)
    expected = 30.0 * np.array(
        [rates(t, FluxConfig()).sum() for t in (point, sample.of("proton")[0])]
    )
    pulls = (counts.sum(axis=0) - 12 * expected) / np.sqrt(12 * expected)
    assert np.abs(pulls).max() < 4
    spread = counts.var(axis=0, ddof=1) / expected
    assert (spread > 0.2).all()
    assert (spread < 3.0).all()


def test_diffuse_and_point_like_gammas_give_one_rate(sample):
    totals = []
    for tables in (sample, diffuse(sample)):
        (_, weights), *_ = plan_of(tables).tables((20.0, 0.0))
        totals.append((weights.sum(), np.sqrt((weights**2).sum())))
    (first, error), (second, other) = totals
    assert abs(first - second) < 4 * np.hypot(error, other)


def test_a_run_depends_on_its_seed_and_number_only(sample):
    def events(number, **changes):
        return standing_in(plan_of(sample, **changes), number).columns

    first = events(0)
    again = events(0, n_runs=3)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    second = events(1, n_runs=2)
    renumbered = events(0, first_obs_id=2)
    np.testing.assert_array_equal(second["shower_key"], renumbered["shower_key"])
    assert len(first["time"]) != len(events(0, seed=2)["time"]) or not np.array_equal(
        first["shower_key"], events(0, seed=2)["shower_key"]
    )


def test_what_does_not_pass_is_counted_and_nothing_else_changes(sample, cuts):
    """Cutting before events are placed is the same selection as cutting afterwards."""
    energies = (0.6, 100.0)
    whole = plan_of(sample)
    early = Plan(
        sample,
        whole.config,
        FluxConfig(),
        farthest=5.0,
        judge=lambda columns: passes(columns, cuts, energies),
    )
    late, late_counts = standing_in(whole, 0).selected(cuts, energies)
    found, counts = standing_in(early, 0).selected(cuts, energies)
    assert counts == late_counts
    assert counts["outside_energy"] > 0
    for name in ("time", "shower_key", "reco_energy", "gammaness"):
        np.testing.assert_array_equal(found.columns[name], late.columns[name])


def test_wobble_goes_round_the_target(sample):
    plan = plan_of(sample, n_runs=5)
    runs = [standing_in(plan, number) for number in range(5)]
    assert [round(run.wobble[1]) % 360 for run in runs] == [0, 180, 90, 270, 0]
    assert np.allclose([run.wobble[0] for run in runs], 0.5)


def test_background_of_another_zenith_angle_is_no_background(tmp_path, stores):
    far = drawn_store(tmp_path / "far.zarr", zenith_deg=40.0, n_thrown=5_000, seed=9)
    both = read_sample([stores["gamma"], stores["proton"], far.path])
    with pytest.raises(AstriError, match="no simulated proton events at zenith angle 40 deg"):
        plan_of(both).tables((40.0, 0.0))


def test_the_nearest_zenith_angle_stands_in(tmp_path, sample, stores):
    far = drawn_store(tmp_path / "far.zarr", zenith_deg=40.0, n_thrown=20_000, seed=9)
    both = read_sample([stores["gamma"], far.path])
    plan = plan_of(both, n_runs=8, farthest=2.5)
    runs = [standing_in(plan, number) for number in range(8)]
    zeniths = [90 - run.pointing.alt_deg for run in runs]
    assert min(zeniths) < 22
    assert max(zeniths) > 38
    for run, zenith in zip(runs, zeniths, strict=True):
        nearest = 20 if zenith < 30 else 40
        assert f"zenith angle {nearest} deg" in run.notes[0]


def test_good_time_is_that_of_the_option(sample):
    start = plan_of(sample).starts[0]
    part = f"{utc_text(start + 20)}/{utc_text(start + 50)}"
    run = standing_in(plan_of(sample, gti=[part]), 0)
    assert run.ontime == pytest.approx(30, abs=1e-3)
    assert inside(run.columns["time"], run.gti).all()
    with pytest.raises(UsageError, match="lies in no run"):
        plan_of(sample, gti=[part, "2026-03-01T00:00:00/2026-03-01T00:01:00"])
    with pytest.raises(UsageError, match="nothing would be left"):
        standing_in(plan_of(sample, gti=[part], n_runs=2), 1)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"wobble_offset_deg": 5.0}, AstriError, "where no gammas were thrown"),
        ({"wobble_angles_deg": []}, UsageError, "wobble_angles_deg is empty"),
    ],
)
def test_what_cannot_stand_in_is_told(sample, changes, kind, words):
    with pytest.raises(kind, match=words):
        standing_in(plan_of(only_point(sample), farthest=10.0, **changes), 0)


def only_point(sample):
    return Sample(tuple(t for t in sample if t.point_like or t.kind != "gamma"), sample.meta)


def test_background_alone_cannot_stand_in(sample):
    with pytest.raises(AstriError, match="no gammas among the stores"):
        plan_of(Sample(tuple(sample.background()), sample.meta))
