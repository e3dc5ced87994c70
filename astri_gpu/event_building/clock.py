"""The clock of a telescope: its offset as a function of time, straight but for jumps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTERPOLATED", "JUMP", "NEVER", "WIDE", "Clock", "Node"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

INTERPOLATED, WIDE, JUMP, NEVER = 1, 2, 4, 8  # see seb0_file.FLAGS

FAR_NS = 1e15  # beyond every time of a run


@dataclass(frozen=True)
class Node:
    """The offset of a telescope at one time."""

    time_ns: float
    offset_ns: float
    error_ns: float
    n_pairs: int
    interval: int
    """-1 for a stretch within an interval."""
    wide: bool = False


@dataclass
class Clock:
    """The offset of a telescope as a function of time: straight between nodes, with jumps."""

    nodes: list[Node] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)
    """Numbers of the hits, in the order of the file, from which the next nodes hold."""
    cuts: list[int] = field(default_factory=list)
    """For each jump the number of nodes before it."""
    slope: float = 0.0
    """Typical drift, which continues the ends; ns of offset per ns."""

    def offsets(self, time: Ints) -> Ints:
        """Return the offsets of hits in the order of the file, ns; without nodes zeros."""
        result = np.zeros(len(time), np.int64)
        if self.nodes:
            for first, last, nodes in self.pieces(len(time)):
                result[first:last] = np.rint(self.line(nodes, time[first:last]))
        return result

    def pieces(self, n_hits: int) -> list[tuple[int, int, list[Node]]]:
        """Return first hit, hit behind the last, and nodes of each piece without jumps."""
        hits = [0, *self.jumps, n_hits]
        bounds = [0, *self.cuts, len(self.nodes)]
        return [
            (hits[k], hits[k + 1], self.nodes[bounds[k] : bounds[k + 1]])
            for k in range(len(hits) - 1)
        ]

    def line(self, nodes: Sequence[Node], time: Ints) -> Floats:
        """Return the line through nodes at some times, continued with the typical drift."""
        at = np.array([node.time_ns for node in nodes])
        value = np.array([node.offset_ns for node in nodes])
        order = np.argsort(at, kind="stable")
        at, value = at[order], value[order]
        at = np.concatenate([[at[0] - FAR_NS], at, [at[-1] + FAR_NS]])
        reach = self.slope * FAR_NS
        value = np.concatenate([[value[0] - reach], value, [value[-1] + reach]])
        line: Floats = np.interp(time, at, value)
        return line
