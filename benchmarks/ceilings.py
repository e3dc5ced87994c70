"""What the machine itself can do: limits that no program passes."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["read_bytes_per_s"]

BYTES = 2**30  # far more than the caches hold
N_ROUNDS = 7


def read_bytes_per_s(threads: int = 0, n_bytes: int = BYTES) -> float:
    """Return how fast all cores together read memory, bytes/s, the best of a few rounds.

    Every thread ORs the words of its own part, which costs less than fetching them.

    Parameters
    ----------
    threads
        How many read, 0 = all cores of this process.
    n_bytes
        Read in a round.
    """
    threads = threads or len(os.sched_getaffinity(0))
    words = np.ones(n_bytes // 8, dtype=np.uint64)
    parts = np.array_split(words, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(N_ROUNDS):
            started = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best = min(best, time.perf_counter() - started)
    return words.nbytes / best
