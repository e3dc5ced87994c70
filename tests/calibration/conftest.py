"""A telescope that tracks the Crab, and its housekeeping."""

import numpy as np
import pytest

from astri_gpu.calibration.housekeeping import CLOCK, LID, SENSORS, TRACKING, Housekeeping
from astri_gpu.dl3.sky import to_altaz
from tests.calibration.made_dl0 import SITE, START, TRACK

ALL_GOOD = TRACKING | SENSORS | LID | CLOCK


@pytest.fixture(scope="session")
def tracking():
    """Return a function that makes ten minutes of housekeeping, once a second."""
    time_s = START + np.arange(601)
    place = to_altaz(TRACK.ra_deg, TRACK.dec_deg, time_s, SITE)

    def made(tel_id: int = 1, **changes) -> Housekeeping:
        n_events = 100 * np.arange(601)
        samples = Housekeeping(
            tel_id=tel_id,
            time_s=time_s,
            time_ns=np.zeros(601, dtype=np.int64),
            alt=place.alt.copy(),
            az=place.az.copy(),
            n_triggers=n_events,
            n_events=n_events,
            dead_time_s=1e-3 * np.arange(601),
            temperature=np.full(601, 15.0),
            voltage=np.full(601, 40.0),
            status=np.full(601, ALL_GOOD, dtype=np.uint16),
        )
        return samples._replace(**changes)

    return made
