"""A grid of cuts on events in memory, beside pyirf's optimiser on the same tables and grid."""

import functools
import logging
import statistics
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.backend import make_backend
from astri_gpu.selection.grid import GridEvents, GridResult, PlacedEvents, evaluate_grid

from ..ceilings import read_bytes_per_s
from ..row import Measured, Row, Settings, per_two_cores
from ..timing import first_call, steady_seconds
from .device import devices

__all__ = ["ROW", "made_events"]

GOAL = 100
EXPOSURE_S = 50 * 3600.0
EDGES = np.geomspace(10**-0.5, 10**2.5, 16)  # TeV, five bins a decade
GRID: dict[str, Any] = {
    "gammaness_efficiencies": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95],
    "theta_efficiencies": [0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9],
    "multiplicities": [2, 3, 4],
    "qualities": [4],
    "min_theta": 0.02,
    "max_theta": 0.3,
    "ring_deg": (0.0, 1.0),
    "alpha": 0.2,
}
FEW = GRID | {"gammaness_efficiencies": [0.5, 0.8], "theta_efficiencies": [0.68]}


def made_events(n_events: int, seed: int = 1) -> tuple[GridEvents, GridEvents]:
    """Return as many gammas and background events, from energies below the edges to above.

    Spectra, scores and angles only look like those of a production; rates are such that cuts have
    an optimum inside the grid.
    """
    rng = np.random.default_rng(seed)

    def energies(index: float) -> NDArray[np.float64]:
        low, high = 0.2 ** (1 - index), 400 ** (1 - index)
        whole: NDArray[np.float64] = (low + (high - low) * rng.random(n_events)) ** (
            1 / (1 - index)
        )
        return whole

    def made(index: float, beta: tuple[float, float], rate: float, softer: float) -> GridEvents:
        energy = energies(index)
        spread = rng.exponential(1, n_events) if softer < 1 else rng.random(n_events)
        scale = 0.06 * (1 + 1 / energy) if softer < 1 else 3.0
        return GridEvents(
            reco_energy=energy,
            gammaness=rng.beta(*beta, n_events),
            theta_or_offset=scale * np.sqrt(spread),
            n_tels=rng.integers(2, 9, n_events).astype(np.int32),
            quality=rng.integers(1, 5, n_events).astype(np.int32),
            weight=rate * energy**-softer / n_events,
        )

    return made(1.7, (5.0, 1.5), 0.3, 0.8), made(1.7, (1.5, 5.0), 1e3, 1.0)


def measure(settings: Settings) -> Measured:
    """Return the rate of the cpu backend in grid points, the peer's, and whether cuts agree."""
    n_events = settings.size(1_000_000, 2000)
    options = FEW if settings.quick else GRID
    events = made_events(n_events)
    backend = make_backend("cpu", settings.threads)
    call = functools.partial(evaluate_grid, *events, EDGES, **options, backend=backend)
    first = first_call(call)
    seconds = settings.size(2, 0)
    before = steady_seconds(call, seconds=seconds)
    peer_seconds, peer = _peer(events, options)
    after = steady_seconds(call, seconds=seconds)
    ours = statistics.mean([before, after])
    placed = PlacedEvents(*events, EDGES, backend=backend)
    again = steady_seconds(functools.partial(placed.evaluate, **options), seconds=seconds)

    n_points = (
        len(options["gammaness_efficiencies"])
        * len(options["theta_efficiencies"])
        * len(options["multiplicities"])
    )
    n_bytes = sum(column.nbytes for part in events for column in part)
    bandwidth = read_bytes_per_s(settings.threads, settings.size(2**30, 2**20))
    same, error = _compared(call(), options, peer)
    notes = [
        f"{n_events:,} gammas and as many background events in {len(EDGES) - 1} energy bins, "
        f"{n_points} grid points; pyirf ran once, between two sets of ours",
        f"{1e3 * ours:.0f} ms from columns to counts ({1e3 * before:.0f} before, "
        f"{1e3 * after:.0f} after), {1e3 * again:.0f} ms for the next grid on the same events; "
        f"pyirf {peer_seconds:.1f} s; first call, with compiling where there is no cache, "
        f"{first:.1f} s",
        f"floor: {n_bytes / 1e6:.0f} MB of columns read once ({n_bytes // (2 * n_events)} bytes an "
        f"event) at the measured {bandwidth / 1e9:.0f} GB/s; bringing events together by bin "
        "writes and reads them again, and each selection compares 20 cuts and counts buckets",
        f"cuts of {same} of {len(peer['known'])} bins are those of pyirf, to the last digit "
        f"({int(peer['known'].sum())} bins where pyirf has a finite sensitivity)",
        *_other_backends(events, options, seconds, n_points),
    ]
    return Measured(
        rate=n_points / ours,
        unit="grid points/s",
        peer="pyirf.cut_optimization.optimize_cuts",
        peer_rate=n_points / peer_seconds,
        ratio=peer_seconds / ours,
        ceiling="reading the columns once from memory, for all points together",
        ceiling_rate=n_points * bandwidth / n_bytes,
        reached=bool(
            per_two_cores(peer_seconds / ours, settings.threads) >= GOAL
            and same == int(peer["known"].sum())
        ),
        error=error,
        error_from="pyirf's relative sensitivity at the chosen cuts, relative",
        notes=tuple(notes),
        details={
            "seconds": {"before": before, "after": after, "again": again, "pyirf": peer_seconds},
            "n_points": n_points,
        },
    )


def _peer(
    events: tuple[GridEvents, GridEvents], options: dict[str, Any]
) -> tuple[float, dict[str, NDArray[Any]]]:
    """Return the seconds of pyirf's optimiser, and what it chose in each bin."""
    import astropy.units as u
    from astropy.table import QTable
    from pyirf.cut_optimization import optimize_cuts

    gammas, background = (
        QTable(
            {
                "reco_energy": part.reco_energy * u.TeV,
                "gh_score": part.gammaness,
                angle: part.theta_or_offset * u.deg,
                "multiplicity": part.n_tels,
                "weight": part.weight * EXPOSURE_S,
            }
        )
        for part, angle in zip(events, ("theta", "reco_source_fov_offset"), strict=True)
    )
    found = {}

    def run() -> None:
        found["tables"] = optimize_cuts(
            gammas,
            background,
            EDGES * u.TeV,
            options["multiplicities"],
            np.array(options["gammaness_efficiencies"]),
            np.array(options["theta_efficiencies"]),
            fov_offset_min=options["ring_deg"][0] * u.deg,
            fov_offset_max=options["ring_deg"][1] * u.deg,
            alpha=options["alpha"],
            theta_min_value=options["min_theta"] * u.deg,
            theta_max_value=options["max_theta"] * u.deg,
            progress=False,
        )

    # It has a line to say of every bin without events.
    logging.getLogger("pyirf").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = first_call(run)
    sensitivity, n_tels, theta, gammaness = found["tables"]
    relative = np.asarray(sensitivity["relative_sensitivity"])
    return seconds, {
        "relative": relative,
        "known": np.isfinite(relative),
        "gammaness": np.asarray(gammaness["cut"]),
        "theta": theta["cut"].to_value("deg"),
        "n_tels": np.asarray(n_tels["cut"]),
    }


def _compared(
    grid: GridResult, options: dict[str, Any], peer: dict[str, NDArray[Any]]
) -> tuple[int, float]:
    """Return in how many bins all three cuts are the peer's, and how sensitivities differ."""
    score = np.moveaxis(grid.relative_sensitivity(EXPOSURE_S), 2, 0)
    bins = np.arange(len(score))
    place = np.argmin(score.reshape(len(score), -1), axis=1)
    q, m, i, j = np.unravel_index(place, score.shape[1:])
    known = peer["known"]
    same = (
        (grid.gammaness_cuts[q, m, bins, i] == peer["gammaness"])
        & (grid.theta_cuts[q, m, bins, j] == peer["theta"])
        & (np.array(options["multiplicities"])[m] == peer["n_tels"])
    )
    error = np.abs(score[bins, q, m, i, j][known] / peer["relative"][known] - 1)
    return int(np.sum(same & known)), float(error.max(initial=0.0))


def _other_backends(
    events: tuple[GridEvents, GridEvents], options: dict[str, Any], seconds: float, n_points: int
) -> list[str]:
    """Return the rates of the array text, in words."""
    notes = []
    for name in dict.fromkeys(("numpy", "jax", *devices())):
        backend = make_backend(name)
        call = functools.partial(evaluate_grid, *events, EDGES, **options, backend=backend)
        first = first_call(call)
        whole = steady_seconds(call, seconds=seconds)
        placed = PlacedEvents(*events, EDGES, backend=backend)
        again = steady_seconds(functools.partial(placed.evaluate, **options), seconds=seconds)
        notes.append(
            f"backend {name}, array text: {n_points / whole:,.0f} grid points/s "
            f"({1e3 * whole:.0f} ms; next grid {1e3 * again:.0f} ms; first call {first:.1f} s)"
        )
    return notes


ROW = Row(
    "cuts",
    "a grid of cuts on events in memory, cpu backend, all cores",
    f"≥ {GOAL} × pyirf's optimiser, same cuts",
    measure,
)
