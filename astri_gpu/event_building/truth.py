"""How many showers the stereo events find: efficiency and purity against simulated truth.

Both are of pairs of telescope events: a true pair is one of two telescopes that saw one shower.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.event_building.seb0_file import Members
from astri_gpu.io.fits_bulk import MappedTable

__all__ = ["Score", "Truth", "read_truth", "score", "truth_file"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Truth:
    """The showers of telescope events, (telescope event,), and the clocks of the telescopes."""

    tel_id: Ints
    event_counter: Ints
    shower: Ints
    true_ns: Ints
    clocks: dict[int, tuple[float, float, float, float]]
    """tel_id -> offset at the start (ns), drift (ns/s), jump (ns), its time (s)."""


@dataclass(frozen=True)
class Score:
    """Numbers of pairs and hits, and their ratios."""

    n_true_pairs: int
    n_found_pairs: int
    """True pairs that are in one event."""
    n_pairs: int
    """All pairs that are in one event."""
    n_true_hits: int
    """Telescope events whose shower was seen by another telescope."""
    n_found_hits: int
    """Of them, those that share their event with another telescope of their shower."""

    @property
    def efficiency(self) -> float:
        """Return the share of true pairs that were found."""
        return self.n_found_pairs / self.n_true_pairs if self.n_true_pairs else float("nan")

    @property
    def hit_efficiency(self) -> float:
        """Return the share of hits of stereo showers that are with another of their shower."""
        return self.n_found_hits / self.n_true_hits if self.n_true_hits else float("nan")

    @property
    def purity(self) -> float:
        """Return the share of pairs that are true."""
        return self.n_found_pairs / self.n_pairs if self.n_pairs else float("nan")

    @property
    def n_accidental(self) -> int:
        """Return the pairs that are in one event and not of one shower."""
        return self.n_pairs - self.n_found_pairs


def truth_file(path: str | Path) -> Path:
    """Return the truth file at `path`, or the only one in the folder `path`.

    Raises
    ------
    AstriError
        When the folder holds none, or those of several runs.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.glob("*_truth.fits"))
    if len(found) != 1:
        raise AstriError(
            f"The folder {path} holds {len(found)} truth files (*_truth.fits), and one run has "
            "one: give the file."
        )
    return found[0]


def read_truth(path: str | Path) -> Truth:
    """Return the truth of a simulated run.

    Raises
    ------
    AstriError
        When the file cannot be read or lacks tables or columns.
    """
    with MappedTable(path, "TRUTH") as table:
        tel_id, counter, shower, true_ns = (
            table.read(name).astype(np.int64) for name in ("TEL", "EVT_CTR", "EVENT", "TRUE_NS")
        )
    with MappedTable(path, "CLOCKS") as table:
        names = ("OFFSET", "DRIFT", "JUMP", "JUMP_S")
        columns = [table.read(name).tolist() for name in names]
        clocks = {
            int(tel): tuple(values)
            for tel, *values in zip(table.read("TEL").tolist(), *columns, strict=True)
        }
    return Truth(tel_id, counter, shower, true_ns, clocks)  # type: ignore[arg-type]


def score(members: Members, truth: Truth) -> Score:
    """Return how well events agree with the truth, for the telescope events that are there.

    Raises
    ------
    AstriError
        When a telescope event is not in the truth, which is of another run then.
    """
    shower = _showers(members, truth)
    _, shower, in_shower = np.unique(shower, return_inverse=True, return_counts=True)
    _, event, in_event = np.unique(members.event, return_inverse=True, return_counts=True)
    both = event * max(len(in_shower), 1) + shower
    _, cell, in_both = np.unique(both, return_inverse=True, return_counts=True)
    stereo = in_shower[shower] > 1
    return Score(
        n_true_pairs=_pairs(in_shower),
        n_found_pairs=_pairs(in_both),
        n_pairs=_pairs(in_event),
        n_true_hits=int(stereo.sum()),
        n_found_hits=int((stereo & (in_both[cell] > 1)).sum()),
    )


def _pairs(sizes: Ints) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _showers(members: Members, truth: Truth) -> Ints:
    """Return the shower of each member."""
    largest = max(int(values.max(initial=0)) for values in (truth.event_counter, members[2]))
    key = truth.tel_id * (largest + 1) + truth.event_counter
    order = np.argsort(key, kind="stable")
    wanted = members.tel_id * (largest + 1) + members.event_counter
    place = np.searchsorted(key[order], wanted)
    found = order[np.minimum(place, len(key) - 1)] if len(key) else np.zeros(len(wanted), np.int64)
    unknown = np.ones(len(wanted), bool) if not len(key) else key[found] != wanted
    if unknown.any():
        k = int(np.argmax(unknown))
        raise AstriError(
            f"Event {members.event_counter[k]} of telescope {members.tel_id[k]} is not in the "
            f"truth, nor are {int(unknown.sum()) - 1} others: give the truth of this run."
        )
    return truth.shower[found]
