"""Clocks: offsets, drifts and jumps of made-up telescopes are found, and events with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.dl3.sky import Site
from astri_gpu.event_building.build import build
from astri_gpu.event_building.hits import Hits, Track, flight_time, usable_hits
from astri_gpu.event_building.lags import find_peak
from astri_gpu.event_building.seb0_file import FLAGS
from astri_gpu.event_building.truth import Truth, score

SITE = Site(28.3, -16.51, 2390.0)
SECONDS = 80.0
NARROW = {"spread_ns": 50.0, "duration_s": SECONDS}


def track_of(seconds, start=190_504_800.0):
    return Track(int(start), start, start + seconds, 84.17, 22.01, SITE)


def built(made, **options):
    options = {"interval_s": 10.0} | options
    return build(made.hits, None, track_of(made.duration_s), **options)


def partition(seb0):
    """Return (telescope, row) of all members."""
    return sorted(zip(seb0.members.tel_id.tolist(), seb0.members.row.tolist(), strict=True))


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"offset_us": 30.0, "drift": 8.0},
        {"jumps": [(3, 33.0, 3e6)]},
        {"jumps": [(3, 33.0, -3e6)]},  # the clock goes back
        {"jumps": [(3, 76.0, -3e6)]},  # in the last interval, near its end
        {"jumps": [(3, 33.0, 800.0), (5, 61.0, -15e6)], "dead": [7]},
        {"jumps": [(k, 0.0, (-1) ** k * k * 1e6) for k in range(9)]},  # all far from each other
    ],
    ids=["plain", "far", "jump", "back", "end", "two", "all"],
)
def test_clocks_are_found_and_showers_with_them(case, make_hits):
    made = make_hits(**NARROW, **case)
    result = built(made)
    found = score(result.seb0.members, made.truth)
    assert found.efficiency >= 0.999
    assert found.hit_efficiency >= 0.998
    assert found.purity >= 0.998
    assert partition(result.seb0) == [
        (hits.tel_id, row) for hits in made.hits for row in range(len(hits.row))
    ]
    offsets = result.seb0.offsets
    last = np.full(9, np.nan)
    for slot in range(9):
        use = offsets.tel_id == slot + 1
        last[slot] = offsets.offset_ns[use][-1]
        jumps = [jump for jump in case.get("jumps", ()) if jump[0] == slot and jump[1] > 0]
        begins = use & (offsets.flag & 4 > 0)
        assert np.count_nonzero(begins) == len(jumps)
        for (_, at, _), start in zip(jumps, offsets.start_s[begins], strict=True):
            assert start - 190_504_800 == pytest.approx(at, abs=0.3)
    true = made.offset_ns + made.drift * (SECONDS - 5.0)
    for slot, _, size in case.get("jumps", ()):
        true[slot] += size
    live = np.isfinite(last)
    assert np.flatnonzero(~live).tolist() == case.get("dead", [])
    off = (last - true)[live]
    assert np.abs(off - np.median(off)).max() < 40


def test_a_clock_that_no_search_finds_leaves_its_telescope_single(make_hits):
    made = make_hits(duration_s=20, jumps=[(2, 0.0, 50e6)])
    result = built(made)
    seb0 = result.seb0
    assert "Telescope 3 has no coincidences" in " ".join(result.warnings)
    assert set(seb0.offsets.flag[seb0.offsets.tel_id == 3]) == {8}
    assert set(FLAGS) == {1, 2, 4, 8}
    n_tels = seb0.events.n_tels[seb0.members.event]
    assert set(n_tels[seb0.members.tel_id == 3]) == {1}
    assert len(partition(seb0)) == sum(len(hits.row) for hits in made.hits)


def test_clocks_that_are_right_need_no_search(make_hits):
    made = make_hits(duration_s=20, offset_us=0.0, drift=0.0)
    seb0 = built(made, offset_range_us=0).seb0
    assert score(seb0.members, made.truth).efficiency > 0.999
    assert set(seb0.offsets.offset_ns) == {0.0}


def test_accidental_pairs_are_as_many_as_calculated(make_hits):
    """Hits of no showers at 400 Hz; nothing correlates them."""
    made = make_hits(
        duration_s=100, rate_hz=400, shower_hz=0, offset_us=0, drift=0, jitter_ns=0, blind_ns=0
    )
    result = built(made, offset_range_us=0)
    found, chance = score(result.seb0.members, made.truth), result.accidentals
    rates = made.rates
    calculated = 600e-9 * (rates.sum() ** 2 - (rates**2).sum()) / 2
    assert chance.expected == pytest.approx(calculated)
    assert chance.expected == pytest.approx(36 * 600e-9 * 400**2, rel=0.02)
    assert abs(chance.measured - calculated) < 4 * chance.error
    assert chance.error < 0.03 * calculated
    # A third hit near two makes a pair more with the farther one.
    pairs = found.n_accidental / made.duration_s
    assert abs(pairs - calculated) < 4 * np.sqrt(calculated / made.duration_s) + 0.01 * calculated


def test_no_peak_is_found_where_there_is_none():
    rng = np.random.default_rng(4)
    for n in (5, 60, 3000):
        for _ in range(20):
            assert find_peak(np.sort(rng.integers(-100_000, 100_000, n)), 100_000, 600) is None
    lags = np.sort(
        np.concatenate(
            [rng.integers(-100_000, 100_000, 3000), rng.normal(4321, 100, 60).astype(int)]
        )
    )
    peak = find_peak(lags, 100_000, 600)
    assert abs(peak.lag_ns - 4321) < 60


def test_a_front_from_the_pointing_comes_to_all_at_once():
    """The telescope nearer to the source is hit first; Astropy says where the source is."""
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    track = track_of(1200.0)
    unix = 1_577_836_800 + 190_504_800 + np.array([0.0, 603.0, 1200.0])
    place = EarthLocation.from_geodetic(-16.51 * u.deg, 28.3 * u.deg, 2390 * u.m)
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        sky = SkyCoord(84.17 * u.deg, 22.01 * u.deg).transform_to(
            AltAz(obstime=Time(unix, format="unix"), location=place)
        )
    north = np.cos(sky.alt) * np.cos(sky.az)
    east = np.cos(sky.alt) * np.sin(sky.az)
    position = np.array([320.0, -410.0, 15.0])  # towards North, West, up
    path = position[0] * north - position[1] * east + position[2] * np.sin(sky.alt)
    early = path.value / 0.299792458
    time = np.array([0, 603, 1200]) * 10**9
    assert np.abs(early).min() > 200
    np.testing.assert_allclose(flight_time(position, time, track), early, atol=0.7)


def test_times_that_cannot_be_are_left_out():
    start = 190_504_800
    seconds = np.array([0, 1, 2, 3, 100, -100, 12], np.int64) + start
    nanoseconds = np.array([5, 10**9, 999_999_999, 2**32 - 1, 0, 0, 7], np.uint32)
    hits = usable_hits(4, seconds.astype(np.uint32), nanoseconds, np.arange(7), track_of(20.0))
    assert hits.row.tolist() == [0, 2, 6]
    assert hits.time_ns.tolist() == [5, 2_999_999_999, 12_000_000_007]
    assert hits.rejected_row.tolist() == [1, 3, 4, 5]
    assert hits.rejected_reason.tolist() == [1, 1, 2, 2]


def test_score_by_hand(make_hits):
    number = np.arange(6)
    truth = Truth(
        np.array([1, 2, 3, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 1]), number // 3, number, {}
    )
    made = make_hits(duration_s=1)
    members = built(made).seb0.members._replace(
        event=np.array([0, 0, 1, 1, 2, 2]),
        tel_id=truth.tel_id,
        event_counter=truth.event_counter,
    )
    found = score(members, truth)  # showers 000111 in events 001122
    assert (found.n_true_pairs, found.n_found_pairs, found.n_pairs) == (6, 2, 3)
    assert (found.n_true_hits, found.n_found_hits) == (6, 4)
    assert found.n_accidental == 1


def test_hits_are_matched_in_blocks_with_the_same_result(make_hits, monkeypatch):
    made = make_hits(duration_s=4, offset_us=0, drift=0, blind_ns=0, rate_hz=2000, shower_hz=200)
    for hit in made.hits:  # some hits come twice, a little later
        hit.time_ns[1::50] = hit.time_ns[::50][: len(hit.time_ns[1::50])] + 40
    whole = built(made, offset_range_us=0)
    monkeypatch.setattr("astri_gpu.event_building.matching.BLOCK", 100)
    parts = built(made, offset_range_us=0)
    assert whole.n_left_over == parts.n_left_over > 100
    for name in ("events", "members"):
        for left, right in zip(getattr(whole.seb0, name), getattr(parts.seb0, name), strict=True):
            np.testing.assert_array_equal(left, right)


times = st.lists(st.integers(-(10**6), 10**10), max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.lists(times, min_size=1, max_size=4), st.integers(0, 5), st.booleans())
def test_any_times(columns, repeat, search):
    """Any times of any telescopes: every hit in one event, ordered, at the time of its members."""
    columns = [column + column[:1] * repeat for column in columns]
    none = np.empty(0, np.int64)
    hits = [
        Hits(k + 1, np.array(column, np.int64), *[np.arange(len(column))] * 2, none, none)
        for k, column in enumerate(columns)
    ]
    result = build(hits, None, track_of(10.0), offset_range_us=100.0 if search else 0.0)
    events, members = result.seb0.events, result.seb0.members
    assert partition(result.seb0) == [
        (hit.tel_id, row) for hit in hits for row in range(len(hit.row))
    ]
    if not len(events.number):
        return
    assert np.array_equal(np.repeat(events.number, events.n_tels), members.event)
    assert np.array_equal(np.cumsum(events.n_tels) - events.n_tels, events.first)
    time = (events.time_s - 190_504_800) * 10**9 + events.time_ns
    assert (np.diff(time) >= 0).all()
    assert ((events.time_ns >= 0) & (events.time_ns < 10**9)).all()
    for number, first, n in zip(events.number, events.first, events.n_tels, strict=True):
        own = slice(first, first + n)
        tels = members.tel_id[own]
        assert (np.diff(tels) > 0).all()
        assert events.telescopes[number] == sum(1 << (tel - 1) for tel in tels.tolist())
        assert np.ptp(members.dt_ns[own]) <= 600
        assert abs(members.dt_ns[own].sum()) < n
