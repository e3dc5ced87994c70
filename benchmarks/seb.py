"""Stereo events from made-up hits: efficiency, purity, accidental pairs, and events per second.

``python -m benchmarks.seb --help``. A run of nine telescopes at 100 Hz whose clocks are
microseconds apart and drift by nanoseconds a second, with and without a jump of 3 ms, and runs up
to ten times as long for the linearity. Timed is everything between hits in memory and stereo events
in memory: way of light, clocks, coincidences, correlograms.

Beside it a plain pairwise builder in NumPy, as such programs are written for two telescopes: for
each pair and interval it counts coincidences at offsets 0.1 us apart and matches hits at the mean
of the best. It is told the true offset at the start of each interval within three half widths, so
that it need not search; its pairs are not joined to events of many telescopes.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.dl3.sky import Site
from astri_gpu.event_building.build import Built, build
from astri_gpu.event_building.hits import Track
from astri_gpu.event_building.truth import score

from .machine import describe, slug
from .seb_hits import NS, MadeHits, make_hits

__all__ = ["main", "pairwise"]

Table = dict[str, Any]

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
RATE_HZ, N_TELS = 100.0, 9
WINDOW_NS, STEP_NS, INTERVAL_S = 300, 100, 30.0
START_S = 190_504_800
SPREAD_NS = 50.0
"""Of the times of a shower: front, field of view; the fast model of the showers has 10 ns."""
POSITIONS = [
    (-90.0, -330.0, 12.0), (160.0, -280.0, 5.0), (-260.0, -20.0, 0.0), (10.0, 0.0, 3.0),
    (250.0, 40.0, -8.0), (-170.0, 240.0, -4.0), (90.0, 270.0, -10.0), (330.0, 220.0, -6.0),
    (-20.0, -160.0, 9.0),
]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seb", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0, help="of the run")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of hits")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--name", default="seb", help="end of the names of the results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    results: Table = {
        "machine": describe(),
        "seconds": options.seconds,
        "cases": [
            _case(name, options.seconds, jumps, options.repeats)
            for name, jumps in (("drifting clocks", ()), ("and a jump of 3 ms", "middle"))
        ],
        "by_chance": _chance(options.seconds),
        "pairwise": _peer(options.seconds, options.repeats),
        "sizes": [_size(n, options.repeats) for n in options.sizes],
    }
    stem = options.output / f"{slug(results['machine'])}-{options.name}"
    options.output.mkdir(parents=True, exist_ok=True)
    stem.with_name(stem.name + ".json").write_text(json.dumps(results, indent=1) + "\n")
    text = _markdown(results)
    stem.with_name(stem.name + ".md").write_text(text)
    print(text)


def _build(made: MadeHits, repeats: int) -> tuple[float, Built]:
    """Return the seconds of the fastest of several, and the result."""
    track = Track(
        START_S, START_S, START_S + made.duration_s, 84.17, 22.01, Site(28.3, -16.51, 2390.0)
    )
    fastest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        built = build(made.hits, POSITIONS, track, interval_s=INTERVAL_S)
        fastest = min(fastest, time.perf_counter() - start)
    return fastest, built


def _made(seconds: float, jumps: Any = ()) -> MadeHits:
    """Return hits as telescopes at their positions have them."""
    from dataclasses import replace

    from astri_gpu.event_building.hits import flight_time

    if jumps == "middle":
        jumps = [(2, seconds / 2, 3e6)]
    made = make_hits(
        duration_s=seconds, n_tels=N_TELS, rate_hz=RATE_HZ, spread_ns=SPREAD_NS, jumps=jumps
    )
    track = Track(START_S, START_S, START_S + seconds, 84.17, 22.01, Site(28.3, -16.51, 2390.0))
    made.hits[:] = [
        replace(hits, time_ns=hits.time_ns - flight_time(position, hits.time_ns, track))
        for hits, position in zip(made.hits, POSITIONS, strict=True)
    ]
    return made


def _case(name: str, seconds: float, jumps: Any, repeats: int) -> Table:
    made = _made(seconds, jumps)
    taken, built = _build(made, repeats)
    found, chance = score(built.seb0.members, made.truth), built.accidentals
    n_hits = sum(len(hits.row) for hits in made.hits)
    return {
        "name": name,
        "n_hits": n_hits,
        "n_stereo": built.seb0.n_stereo,
        "seconds": taken,
        "hits_per_s": n_hits / taken,
        "efficiency": found.efficiency,
        "hit_efficiency": found.hit_efficiency,
        "purity": found.purity,
        "accidental_hz": chance.measured,
        "accidental_error_hz": chance.error,
        "expected_accidental_hz": chance.expected,
        "true_accidental_hz": found.n_accidental / seconds,
        "multi_matches": built.n_left_over,
        "warnings": list(built.warnings),
    }


def _chance(seconds: float) -> Table:
    """Return pairs of hits that have nothing to do with each other, which can be calculated."""
    made = make_hits(
        duration_s=seconds, n_tels=N_TELS, rate_hz=RATE_HZ, shower_hz=0, offset_us=0, drift=0,
        blind_ns=0,
    )  # fmt: skip
    track = Track(START_S, START_S, START_S + seconds, 84.17, 22.01, Site(28.3, -16.51, 2390.0))
    built = build(made.hits, None, track, offset_range_us=0)
    chance = built.accidentals
    return {
        "accidental_hz": chance.measured,
        "accidental_error_hz": chance.error,
        "expected_accidental_hz": chance.expected,
        "true_accidental_hz": score(built.seb0.members, made.truth).n_accidental / seconds,
    }


def _size(n_hits: int, repeats: int) -> Table:
    made = _made(n_hits / (RATE_HZ * N_TELS))
    taken, built = _build(made, repeats if n_hits < 5_000_000 else 1)
    found = score(built.seb0.members, made.truth)
    n = sum(len(hits.row) for hits in made.hits)
    return {
        "n_hits": n,
        "seconds": taken,
        "hits_per_s": n / taken,
        "efficiency": found.efficiency,
    }


def _peer(seconds: float, repeats: int) -> Table:
    """Return time and efficiency of the pairwise builder on the run without a jump."""
    made = make_hits(duration_s=seconds, n_tels=N_TELS, rate_hz=RATE_HZ, spread_ns=SPREAD_NS)
    n_hits = sum(len(hits.row) for hits in made.hits)
    fastest = float("inf")
    for _ in range(min(repeats, 2)):
        start = time.perf_counter()
        pairs = pairwise(made)
        fastest = min(fastest, time.perf_counter() - start)
    truth = made.truth
    shower = {tel: truth.shower[truth.tel_id == tel] for tel in range(1, len(made.hits) + 1)}
    right = sum(int(np.count_nonzero(shower[a + 1][i] == shower[b + 1][j])) for a, b, i, j in pairs)
    _, sizes = np.unique(truth.shower, return_counts=True)
    n_true = int((sizes * (sizes - 1) // 2).sum())
    return {
        "n_hits": n_hits,
        "seconds": fastest,
        "hits_per_s": n_hits / fastest,
        "efficiency": right / n_true,
        "purity": right / sum(len(i) for _, _, i, _ in pairs),
    }


def pairwise(made: MadeHits) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Return for each pair of telescopes the hits that coincide, by intervals."""
    n_parts = max(1, round(made.duration_s / INTERVAL_S))
    edges = np.linspace(0, made.duration_s * NS, n_parts + 1)
    edges[0], edges[-1] = -np.inf, np.inf
    found = []
    for a, b in itertools.combinations(range(len(made.hits)), 2):
        first, second = (np.sort(made.times[slot], kind="stable") for slot in (a, b))
        left, right = [], []
        for k in range(n_parts):
            low, high = np.searchsorted(first, edges[k : k + 2])
            part = first[low:high]
            guess = made.offset_ns[b] - made.offset_ns[a]
            guess += (made.drift[b] - made.drift[a]) * k * INTERVAL_S
            scan = round(guess) + np.arange(-3 * WINDOW_NS, 3 * WINDOW_NS + 1, STEP_NS)
            counts = np.array([len(_coincidences(part, second, int(x))[0]) for x in scan])
            best = int(np.mean(scan[counts == counts.max()]))
            near = np.abs(scan - best) <= 2 * WINDOW_NS
            offset = round(np.average(scan[near], weights=counts[near] + 1e-9))
            i, j = _coincidences(part, second, offset)
            left.append(i + low)
            right.append(j)
        found.append((a, b, np.concatenate(left), np.concatenate(right)))
    return found


def _coincidences(
    first: np.ndarray, second: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hits of the first that have one of the second within the window, and that one."""
    low = np.searchsorted(second, first + offset - WINDOW_NS, "left")
    high = np.searchsorted(second, first + offset + WINDOW_NS, "right")
    (i,) = np.nonzero(high > low)
    return i, low[i]


def _markdown(results: Table) -> str:
    machine, peer = results["machine"], results["pairwise"]
    lines = [
        "# Stereo events",
        "",
        f"{machine['date']}, revision {machine['revision']}, {machine['cores']} cores, one thread. "
        f"Made-up hits of {N_TELS} telescopes at {RATE_HZ:g} Hz, {results['seconds']:g} s: clocks "
        f"5 us apart that drift by 2 ns/s, showers {SPREAD_NS:g} ns wide, window {WINDOW_NS} ns to "
        "both sides. Efficiency and purity are of pairs of telescopes that saw one shower.",
        "",
        "| | hits | seconds | hits/s | efficiency | purity | accidental pairs, measured | "
        "calculated |",
        "|---|" + "---:|" * 7,
    ]
    for row in results["cases"]:
        lines.append(
            f"| {row['name']} | {row['n_hits']:,} | {row['seconds']:.2f} | "
            f"{row['hits_per_s']:,.0f} | {100 * row['efficiency']:.3f} % | "
            f"{100 * row['purity']:.3f} % | {row['accidental_hz']:.3f} ± "
            f"{row['accidental_error_hz']:.3f} Hz | {row['expected_accidental_hz']:.3f} Hz |"
        )
    ratio = peer["seconds"] / results["cases"][0]["seconds"]
    chance = results["by_chance"]
    lines += [
        f"| pairwise scan (told the offsets) | {peer['n_hits']:,} | {peer['seconds']:.2f} | "
        f"{peer['hits_per_s']:,.0f} | {100 * peer['efficiency']:.3f} % | "
        f"{100 * peer['purity']:.3f} % | | |",
        "",
        f"The pairwise scan takes {ratio:.1f} times as long, and neither looks for the offsets nor "
        "joins pairs to events.",
        "",
        f"Of hits without showers {chance['true_accidental_hz']:.3f} Hz of pairs "
        f"are in one event ({chance['accidental_hz']:.3f} ± {chance['accidental_error_hz']:.3f} Hz "
        f"by the correlogram, {chance['expected_accidental_hz']:.3f} Hz calculated). With showers "
        "there are fewer, because telescopes are blind for 10 us after a hit.",
        "",
        "| hits | seconds | hits/s | efficiency |",
        "|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['n_hits']:,} | {row['seconds']:.2f} | {row['hits_per_s']:,.0f} | "
        f"{100 * row['efficiency']:.3f} % |"
        for row in results["sizes"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
