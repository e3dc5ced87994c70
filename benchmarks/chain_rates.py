"""The chain in memory beside ctapipe's functions, in one process and in turn."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .astri_images import make_events
from .cases import run_case
from .chains import charges, ctapipe_chain, our_chain, setup, worst_difference
from .timing import Rate, rates

__all__ = ["measure_chain"]

PEER = "ctapipe"
ONE_THREAD = "cpu, one thread"
ARRAY_BACKENDS = ("numpy", "jax")  # dense text: a batch is enough to measure


def measure_chain(
    backends: Sequence[str],
    batches: Sequence[int],
    *,
    n_images: int,
    n_peer: int,
    n_rounds: int,
    fresh: bool,
    threads: int = 0,
) -> dict[str, Any]:
    """Return rates, ratios to ctapipe, first calls, memory and errors, ready for JSON.

    The cpu backend runs on all cores (or `threads`), and on one beside it, because ctapipe's
    functions use one.

    Parameters
    ----------
    backends
        Those present.
    batches
        Images in a batch; numpy takes at most its `batch_limit` at a time.
    n_images
        Images of one round of the loop backends.
    n_peer
        Images of one round of ctapipe.
    n_rounds
        How often all contestants take turns.
    fresh
        Whether first calls have to compile (an empty cache of compiled code).
    threads
        Of the cpu backend, 0 = all cores.
    """
    made = setup(make_events(max(n_images, *batches)))
    runs = {name: our_chain(made, name, threads=threads) for name in backends}
    of_case = {name: (name, threads) for name in backends}
    if "cpu" in backends and threads != 1:
        runs[ONE_THREAD] = our_chain(made, "cpu", threads=1)
        of_case[ONE_THREAD] = ("cpu", 1)
    contestants: dict[str, tuple[int, Any]] = {}
    peer = _peer(made, n_peer)
    if peer:
        contestants[PEER] = (n_peer, peer)
    for name, (backend, run) in runs.items():
        for batch in batches:
            step = min(batch, backend.batch_limit or batch)
            n = batch if name in ARRAY_BACKENDS else max(batch, n_images // batch * batch)
            if name == "numpy" and step < batch:
                continue  # the stage cuts larger batches to this size
            contestants[f"{name} {batch}"] = (n, _over(run, n, step))
    found = rates(contestants, n_rounds=n_rounds)
    cases = [
        _entry(
            name,
            batch,
            found,
            run_case(
                "chain",
                fresh=fresh,
                backend=of_case[name][0],
                batch=batch,
                threads=of_case[name][1],
            ),
        )
        for name in runs
        for batch in batches
        if f"{name} {batch}" in found
    ]
    survivors = _columns(runs, backends[0], n_peer)["morphology_n_pixels"]
    return {
        "peer": _peer_entry(found),
        "cases": cases,
        "cleaned_pixels": {
            "median": float(np.median(survivors)),
            "mean": float(np.mean(survivors)),
        },
        "errors": _errors(runs, peer, n_peer),
        "n_images": made.events.n_images,
        "load_average": list(os.getloadavg()),
    }


def _over(run: Any, n_images: int, step: int) -> Any:
    def call() -> None:
        for first in range(0, n_images, step):
            run(first, min(first + step, n_images))

    return call


def _peer(made: Any, n_peer: int) -> Any:
    try:
        return ctapipe_chain(made, charges(made, 0, n_peer))
    except ImportError:
        return None


def _peer_entry(found: dict[str, Rate]) -> dict[str, Any] | None:
    if PEER not in found:
        return None
    return {"images_per_s": found[PEER].median, "rounds": found[PEER].rounds}


def _entry(name: str, batch: int, found: dict[str, Rate], case: dict[str, Any]) -> dict[str, Any]:
    rate = found[f"{name} {batch}"]
    return {
        "backend": name,
        "batch": batch,
        "images_per_s": rate.median,
        "rounds": rate.rounds,
        "ratio_to_ctapipe": rate.ratio(found[PEER]) if PEER in found else None,
        **case,
    }


def _columns(runs: dict[str, Any], name: str, n_images: int) -> dict[str, Any]:
    backend, run = runs[name]
    step = backend.batch_limit or n_images
    parts = [run(first, min(first + step, n_images)).columns for first in range(0, n_images, step)]
    return {
        column: np.concatenate([backend.to_host(part[column]) for part in parts])
        for column in parts[0]
    }


def _errors(runs: dict[str, Any], peer: Any, n_images: int) -> dict[str, Any]:
    """Return the largest relative difference of each backend from numpy, and from ctapipe."""
    errors: dict[str, Any] = {}
    columns = {name: _columns(runs, name, n_images) for name in runs}
    for name in columns:
        if "numpy" in columns and name != "numpy":
            errors[f"{name} from numpy"] = _worst(columns[name], columns["numpy"])
    if peer:
        reference = peer()
        for name, found in columns.items():
            # Our default also asks for three core pixels.
            used = (found["image_flags"] == 0) & ~np.isnan(reference["hillas_intensity"])
            errors[f"{name} from ctapipe"] = _worst(
                {column: found[column][used] for column in reference},
                {column: values[used] for column, values in reference.items()},
            )
    return errors


def _worst(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    worst, column = worst_difference(found, wanted)
    return {
        "worst": worst,
        "column": column,
        "n_images": len(next(iter(wanted.values()))),
    }
