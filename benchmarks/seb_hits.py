"""Made-up hits of telescopes with known showers and clocks, for the benchmark and for tests."""

from dataclasses import dataclass

import numpy as np

from astri_gpu.event_building.hits import Hits
from astri_gpu.event_building.truth import Truth

__all__ = ["MadeHits", "make_hits"]

NS = 10**9


@dataclass
class MadeHits:
    """Clock readings by telescope, in the order in which they happened, and the truth."""

    hits: list[Hits]
    truth: Truth
    offset_ns: np.ndarray
    drift: np.ndarray
    duration_s: float
    rates: np.ndarray

    @property
    def times(self):
        return [hit.time_ns for hit in self.hits]


def make_hits(
    duration_s=60.0,
    n_tels=9,
    rate_hz=100.0,
    shower_hz=60.0,
    share=0.45,
    spread_ns=80.0,
    offset_us=5.0,
    drift=2.0,
    jitter_ns=5.0,
    jumps=(),
    dead=(),
    seed=1,
    blind_ns=10_000,
):
    """Return hits of showers that each telescope sees with a chance of `share`, and of no shower.

    `jumps` are (slot, time in s, jump in ns); telescopes in `dead` see nothing. Hits of no shower
    fill up to `rate_hz`; a telescope is blind for `blind_ns` after each hit.
    """
    rng = np.random.default_rng(seed)
    n_showers = rng.poisson(shower_hz * duration_s)
    front = np.sort(rng.integers(0, round(duration_s * NS), n_showers))
    offset = rng.normal(0, 1e3 * offset_us, n_tels)
    slope = rng.normal(0, drift, n_tels)
    hits, truth, alone = [], [], n_showers
    for slot in range(n_tels):
        seen = rng.random(n_showers) < (0.0 if slot in dead else share)
        own = front[seen] + np.rint(rng.normal(0, spread_ns, seen.sum())).astype(np.int64)
        n_more = 0 if slot in dead else rng.poisson((rate_hz - shower_hz * share) * duration_s)
        true = np.concatenate([own, rng.integers(0, round(duration_s * NS), n_more)])
        shower = np.concatenate([np.nonzero(seen)[0], alone + np.arange(n_more)])
        alone += n_more
        order = np.argsort(true, kind="stable")
        true, shower = true[order], shower[order]
        live = np.concatenate([[True], np.diff(true) > blind_ns])[: len(true)]
        true, shower = true[live], shower[live]
        clock = offset[slot] + slope[slot] * true / NS + rng.normal(0, jitter_ns, len(true))
        for which, at, size in jumps:
            if which == slot:
                clock += np.where(true >= at * NS, size, 0.0)
        n = len(true)
        counter = np.arange(n)
        empty = np.empty(0, np.int64)
        hits.append(
            Hits(slot + 1, true + np.rint(clock).astype(np.int64), counter, counter, empty, empty)
        )
        truth.append((np.full(n, slot + 1), counter, shower, true))
    columns = [np.concatenate(parts) for parts in zip(*truth, strict=True)]
    rates = np.array([len(hit.row) for hit in hits]) / duration_s
    return MadeHits(hits, Truth(*columns, clocks={}), offset, slope, duration_s, rates)
