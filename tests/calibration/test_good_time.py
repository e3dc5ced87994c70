"""Good time intervals: each reason by itself, and what holds whatever the samples say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.calibration.good_time import GoodTimeLimits, good_intervals, packet_gaps
from astri_gpu.dl0.files import find_dl0
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from tests.calibration.made_dl0 import START, TRACK, description, times, write_dl0

STOP = START + 600
NS = 10**9


def spans(found):
    """Return the intervals in seconds since the start of the run."""
    return (found.intervals - START).round(6).tolist()


def test_a_good_run_is_one_interval(tracking):
    found = good_intervals([tracking(1), tracking(2)], START, STOP, track=TRACK)
    assert spans(found) == [[0, 600]]
    assert found.start_s.tolist() == [REFERENCE_UNIX_S + START]
    assert found.seconds == found.run_s == 600
    assert found.reasons == ()


@pytest.mark.parametrize(("bit", "what"), [(1, "track"), (2, "sensors"), (4, "lid"), (8, "clock")])
def test_each_bit_of_the_status_counts(tracking, bit, what):
    bad = tracking(2)
    bad.status[100:111] &= ~np.uint16(bit)
    found = good_intervals([tracking(1), bad], START, STOP, track=TRACK)
    # From the last good sample to the next one.
    assert spans(found) == [[0, 99], [111, 600]]
    (reason,) = found.reasons
    assert (reason.tel_id, reason.seconds, reason.n_stretches) == (2, 12, 1)
    assert what in str(reason)


def test_fewer_telescopes_may_do(tracking):
    first, second = tracking(1), tracking(2)
    first.status[100:200] = 0
    second.status[150:300] = 0
    limits = GoodTimeLimits(min_telescopes=1)
    assert spans(good_intervals([first, second], START, STOP, limits=limits)) == [
        [0, 149],
        [200, 600],
    ]
    assert spans(good_intervals([first, second], START, STOP)) == [[0, 99], [300, 600]]


def test_the_pointing_has_to_be_on_its_track(tracking):
    off = tracking()
    off.alt[200:210] += 0.15
    off.alt[400] = np.nan
    found = good_intervals([off], START, STOP, track=TRACK)
    assert spans(found) == [[0, 199], [210, 399], [401, 600]]
    assert found.reasons[0].seconds == 13
    assert spans(good_intervals([off], START, STOP)) == [[0, 600]]


def test_housekeeping_has_to_be_there(tracking):
    whole = tracking()
    keep = np.r_[3:100, 104:300, 310:590]
    columns = {
        name: getattr(whole, name)[keep]
        for name in whole._fields
        if isinstance(getattr(whole, name), np.ndarray)
    }
    found = good_intervals([whole._replace(**columns)], START, STOP)
    assert spans(found) == [[0, 299], [310, 589]]
    none = whole._replace(**{name: part[:0] for name, part in columns.items()})
    assert spans(good_intervals([none], START, STOP)) == []
    assert good_intervals([none], START, STOP, track=TRACK).seconds == 0


def test_a_rate_far_from_the_median_is_not_good(tracking):
    random = np.random.default_rng(1)
    moment = np.sort(random.uniform(0, 600, 60_000))
    quiet = moment[(moment < 300) | (moment > 330)]
    loud = np.concatenate([quiet, random.uniform(500, 510, 3000)])
    columns = times(loud)
    events = {1: (columns["time_s"], columns["time_ns"])}
    found = good_intervals([tracking()], START, STOP, event_times=events)
    assert spans(found) == [[0, 300], [330, 500], [510, 600]]
    steady = times(moment)
    events = {1: (steady["time_s"], steady["time_ns"])}
    assert good_intervals([tracking()], START, STOP, event_times=events).seconds == 600


def test_stretches_of_lost_packets_are_found_over_all_kinds(tracking, tmp_path):
    number = np.r_[0:50, 51:200, 260:1000]
    columns = {"packet_number": number, **times(0.5 * number)}
    is_cal = number % 7 == 0
    for kind, chosen in (("CAL", is_cal), ("HK", ~is_cal)):
        part = {name: values[chosen] for name, values in columns.items()}
        write_dl0(tmp_path, description(), 1, kind, part)
    files = [*find_dl0([tmp_path], "CAL"), *find_dl0([tmp_path], "HK")]
    gaps = packet_gaps(files)
    for file in files:
        file.close()
    np.testing.assert_array_equal(gaps[1], [1, 60])
    np.testing.assert_array_equal(
        gaps[0] - START * NS, [[24.5 * NS, 25.5 * NS], [99.5 * NS, 130 * NS]]
    )
    found = good_intervals([tracking()], START, STOP, gaps={1: gaps})
    assert spans(found) == [[0, 99.5], [130, 600]]
    assert found.reasons[0].what == "packets lost"


@settings(max_examples=60, deadline=None)
@given(data=st.data(), needed=st.none() | st.integers(1, 3))
def test_intervals_are_in_order_apart_and_inside_the_run(tracking, data, needed):
    telescopes = []
    for tel_id in range(1, data.draw(st.integers(1, 3)) + 1):
        samples = tracking(tel_id)
        moved = data.draw(st.lists(st.integers(0, 600), max_size=12))
        keep = np.setdiff1d(np.arange(601), moved)
        start = data.draw(st.integers(-700, 700))
        columns = {
            name: getattr(samples, name)[keep]
            for name in samples._fields
            if isinstance(getattr(samples, name), np.ndarray)
        }
        columns["time_s"] = columns["time_s"] + start
        bad = np.array(data.draw(st.lists(st.integers(0, len(keep) - 1), max_size=20)), dtype=int)
        columns["status"][bad] = data.draw(st.integers(0, 14))
        telescopes.append(samples._replace(**columns))
    found = good_intervals(
        telescopes, START, STOP, limits=GoodTimeLimits(min_telescopes=needed, max_gap_s=3)
    )
    edges = (found.intervals - START).ravel()
    assert (np.diff(edges) > 0).all()
    assert (edges >= 0).all()
    assert (edges <= 600).all()
    for reason in found.reasons:
        assert 0 < reason.seconds <= 600
    # A sample in the run that is good has good time on both sides only beside other good samples.
    if len(telescopes) == 1 and (needed or 1) == 1:
        samples = telescopes[0]
        middle = samples.time_s - START
        inside = (middle > 0) & (middle < 600)
        covered = np.array(
            [any(a < moment < b for a, b in edges.reshape(-1, 2)) for moment in middle], dtype=bool
        )
        assert not covered[inside & (samples.status != 15)].any()
