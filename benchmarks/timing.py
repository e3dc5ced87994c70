"""Clocks: the first call apart, contestants in turn, so that a noisy machine disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Rate", "first_call", "rates", "steady_seconds"]

Call = Callable[[], Any]


class Rate(NamedTuple):
    """Images per second of one contestant, one number per round."""

    n_images: int
    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def ratio(self, other: "Rate") -> float:
        """Return the median of the ratios, each of two neighbouring measurements."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


def first_call(call: Call) -> float:
    """Return the seconds of a call, which should be the first one: compilation is in it."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def steady_seconds(call: Call, *, seconds: float) -> float:
    """Return the median time of a call that has been made before, at least three of them."""
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 1000):
        times.append(first_call(call))
    return statistics.median(times)


def rates(contestants: Mapping[str, tuple[int, Call]], *, n_rounds: int) -> dict[str, Rate]:
    """Return the rate of every contestant (number of images, call that processes them).

    All are called once without a clock, then in turn (A B C A B C ...).
    """
    for _, call in contestants.values():
        call()
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(n_rounds):
        for name, (n_images, call) in contestants.items():
            rounds[name].append(n_images / first_call(call))
    return {name: Rate(contestants[name][0], values) for name, values in rounds.items()}
