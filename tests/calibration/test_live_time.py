"""Dead time from counters, against a telescope that is blind after each event."""

import numpy as np
import pytest

from astri_gpu.calibration.live_time import (
    array_dead_time,
    dead_time_share,
    disagreements,
    interval_share,
)
from tests.calibration.made_dl0 import START

DEAD_S = 2e-3


@pytest.fixture(scope="module")
def telescope():
    """Return (times of all triggers, those read out), s: Poissonian, 100 Hz, 2 ms dead time."""
    random = np.random.default_rng(3)
    triggers = np.cumsum(random.exponential(0.01, 61_000))
    triggers = triggers[triggers < 600]
    events, awake = [], 0.0
    for moment in triggers:
        if moment >= awake:
            events.append(moment)
            awake = moment + DEAD_S
    return triggers, np.array(events)


@pytest.fixture(scope="module")
def counted(telescope, tracking):
    triggers, events = telescope
    edges = np.arange(601.0)
    n_events = np.searchsorted(events, edges)
    return tracking(
        n_triggers=np.searchsorted(triggers, edges),
        n_events=n_events,
        dead_time_s=n_events * DEAD_S,
    )


def test_three_measures_of_the_dead_time_agree(telescope, counted):
    found = dead_time_share(counted)
    expected = 1 - 1 / (1 + 100 * DEAD_S)  # of a rate of triggers that do not prolong it
    assert found.share == pytest.approx(expected, rel=0.02)
    assert found.share_of_triggers == pytest.approx(found.share, abs=4 * found.share_error)
    ns = np.rint(telescope[1] * 1e9).astype(np.int64)
    of_intervals = interval_share(START + ns // 10**9, ns % 10**9)
    assert of_intervals == pytest.approx(found.share, rel=0.02)
    assert disagreements(found, of_intervals) == []
    assert found.livetime_s == pytest.approx(600 - len(telescope[1]) * DEAD_S, abs=0.01)


def test_a_counter_that_starts_again_costs_one_second_only(counted):
    whole = dead_time_share(counted)
    again = np.arange(601) >= 300

    def restarted(values):
        return np.where(again, values - values[299], values)

    found = dead_time_share(
        counted._replace(
            n_triggers=restarted(counted.n_triggers),
            n_events=restarted(counted.n_events),
            dead_time_s=restarted(counted.dead_time_s),
        )
    )
    assert found.n_resets == 1
    (sentence,) = disagreements(found)
    assert (
        "went back in 1 intervals of housekeeping: its dead time is that of the other 599"
        in sentence
    )
    assert found.seconds == 599
    assert found.share == pytest.approx(whole.share, rel=0.01)


def test_measures_that_disagree_are_told(counted):
    wrong = dead_time_share(counted._replace(dead_time_s=2 * counted.dead_time_s))
    triggers, intervals = disagreements(wrong, 0.17)
    assert "lost 16.8 % of its triggers and was blind for 33.3 % of the time" in triggers
    assert "33.3 % of the time by its counter, and events follow each other as if" in intervals
    assert disagreements(wrong) == [triggers]
    never = dead_time_share(counted._replace(n_triggers=counted.n_events))
    assert "lost 0 % of its triggers" in disagreements(never)[0]


def test_only_the_time_of_intervals_counts(counted):
    blind = counted.dead_time_s + np.cumsum(np.where(np.arange(601) > 500, 0.5, 0.0))
    changed = counted._replace(dead_time_s=blind)
    assert dead_time_share(changed).share > 1.3 * dead_time_share(counted).share
    good = dead_time_share(changed, np.array([[START, START + 200.0], [START + 300, START + 500]]))
    assert good.seconds == 400
    assert good.share == pytest.approx(dead_time_share(counted).share, rel=0.02)


def test_without_samples_or_events_the_share_is_not_known(counted):
    lone = counted._replace(
        **{
            name: getattr(counted, name)[:1]
            for name in counted._fields
            if isinstance(getattr(counted, name), np.ndarray)
        }
    )
    unknown = dead_time_share(lone)
    assert np.isnan([unknown.share, unknown.share_of_triggers]).all()
    assert np.isnan(interval_share(np.array([1, 2]), np.array([0, 0])))
    assert np.isnan(array_dead_time([unknown]))
    known = dead_time_share(counted)
    assert array_dead_time([known, unknown]) == known.share
