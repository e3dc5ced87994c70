"""Files of stereo events (SEB0, FITS): which telescope events belong to one shower.

HDUs: EVENTS, a row per event of the array, those of a single telescope included; MEMBERS, a row
per telescope event, by event and telescope; OFFSETS, what was subtracted from the clocks; PROFILE,
the time differences of all pairs of telescopes; REJECTED, telescope events that are in no event.
Every row of the telescopes' files is in MEMBERS or in REJECTED, once.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.dl3.events_file import table_of
from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk_cards import header_bytes
from astri_gpu.output_file import whole_file

__all__ = [
    "FLAGS",
    "MAX_TEL_ID",
    "REASONS",
    "Events",
    "Members",
    "Offsets",
    "Profile",
    "Rejected",
    "Seb0",
    "read_seb0",
    "write_seb0",
]

VERSION = 1
MAX_TEL_ID = 31
"""TRIGTEL is a signed 32-bit column as in ASTRI's files, of which the sign is not used."""

REASONS = {
    1: "TIME_NS is 1e9 or more",
    2: "the time is outside the run",
}
FLAGS = {
    1: "no peak here: taken from the neighbouring intervals",
    2: "found by the wide search",
    4: "begins with a jump of the clock",
    8: "no peak in the whole run: events of this telescope stay single",
}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Events(NamedTuple):
    """Events of the array in order of time, (event,)."""

    number: Ints
    """From 0."""
    time_s: Ints
    """UTC s since 2020-01-01, mean of the corrected times of the members."""
    time_ns: Ints
    n_tels: Ints
    telescopes: Ints
    """Bit tel_id - 1 is set for every telescope of the event."""
    first: Ints
    """Row of the first member in `Members`."""


class Members(NamedTuple):
    """Telescope events by event and telescope, (member,)."""

    event: Ints
    tel_id: Ints
    event_counter: Ints
    """EVT_CTR of the telescope."""
    row: Ints
    """In the EVENTS table of the telescope's file."""
    dt_ns: Ints
    """Corrected time of the telescope minus the time of the event."""


class Offsets(NamedTuple):
    """Clock offsets of telescopes for parts of the run, (telescope and interval,)."""

    tel_id: Ints
    start_s: Floats
    stop_s: Floats
    """UTC s since 2020-01-01."""
    offset_ns: Floats
    """In the middle; what is subtracted from the clock's readings. NaN where nothing is known."""
    error_ns: Floats
    n_pairs: Ints
    """Coincidences with other telescopes that it comes from."""
    flag: Ints
    """Sum of `FLAGS`."""


class Profile(NamedTuple):
    """Correlogram of pairs of telescopes after all corrections, (pair and bin,)."""

    tel_a: Ints
    tel_b: Ints
    lag_ns: Floats
    """Middle of the bin; time of b minus time of a."""
    counts: Ints


class Rejected(NamedTuple):
    """Telescope events without a usable time, (telescope event,)."""

    tel_id: Ints
    row: Ints
    reason: Ints
    """See `REASONS`."""


@dataclass(frozen=True)
class Seb0:
    """Stereo events of a run.

    `header` has the keywords of the primary header, name -> value: those of the run (see
    `astri_gpu.dl0.header`) and those of this step.
    """

    events: Events
    members: Members
    offsets: Offsets
    profile: Profile
    rejected: Rejected
    window_us: float
    """Half width of the window of coincidences."""
    tof_corrected: bool
    header: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    """Where it was read from."""

    @property
    def n_stereo(self) -> int:
        """Return the number of events of two telescopes or more."""
        return int(np.count_nonzero(self.events.n_tels > 1))

    @property
    def tel_ids(self) -> tuple[int, ...]:
        """Return the telescopes that have events, in order."""
        seen = np.union1d(self.members.tel_id, self.rejected.tel_id)
        return tuple(int(tel_id) for tel_id in seen)

    @property
    def obs_id(self) -> int | None:
        """Return the number of the run, None if the header does not have it."""
        number = self.header.get("OBS_ID")
        return None if number is None else int(number)


Column = tuple[str, str, str | None, str]  # FITS name, form, unit, description

TABLES: dict[str, tuple[type[Any], tuple[Column, ...]]] = {
    "EVENTS": (
        Events,
        (
            ("EVTNUM", "K", None, "number of the event, by time"),
            ("TIME_S", "J", "s", "UTC since 2020-01-01, mean of the telescopes"),
            ("TIME_NS", "J", "ns", "to add"),
            ("NTRIGTEL", "I", None, "telescopes"),
            ("TRIGTEL", "J", None, "bit TEL - 1 for every telescope"),
            ("FIRST", "K", None, "row of the first member, from 0"),
        ),
    ),
    "MEMBERS": (
        Members,
        (
            ("EVTNUM", "K", None, "number of the event"),
            ("TEL", "I", None, "telescope"),
            ("EVT_CTR", "K", None, "number of the event at the telescope"),
            ("ROW", "K", None, "in the EVENTS of the telescope's file, from 0"),
            ("DT_NS", "J", "ns", "corrected time minus that of the event"),
        ),
    ),
    "OFFSETS": (
        Offsets,
        (
            ("TEL", "I", None, "telescope"),
            ("TSTART", "D", "s", "UTC since 2020-01-01"),
            ("TSTOP", "D", "s", "UTC since 2020-01-01"),
            ("OFFSET", "D", "ns", "subtracted from the clock, here in the middle"),
            ("ERROR", "D", "ns", "statistical"),
            ("NPAIRS", "K", None, "coincidences behind it"),
            ("FLAG", "I", None, "sum of the flags of the header"),
        ),
    ),
    "PROFILE": (
        Profile,
        (
            ("TEL_A", "I", None, "telescope"),
            ("TEL_B", "I", None, "telescope"),
            ("LAG", "D", "ns", "time of B minus that of A, middle of the bin"),
            ("COUNTS", "K", None, "pairs of events"),
        ),
    ),
    "REJECTED": (
        Rejected,
        (
            ("TEL", "I", None, "telescope"),
            ("ROW", "K", None, "in the EVENTS of the telescope's file, from 0"),
            ("REASON", "I", None, "see the header"),
        ),
    ),
}
WORDS: dict[str, dict[int, str]] = {"OFFSETS": FLAGS, "REJECTED": REASONS}
ATTRIBUTES = {name: name.lower() for name in TABLES}


def write_seb0(
    path: str | Path,
    seb0: Seb0,
    cards: Mapping[str, tuple[Any, str]] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write stereo events into a new file.

    Parameters
    ----------
    path
        Of the file (.fits).
    seb0
        What is written; of `Seb0.header` nothing, see `cards`.
    cards
        More keywords of the primary header, name -> (value, comment): those of the run and of the
        step.
    overwrite
        Replace a file that is there already.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When it cannot be written, or a telescope has a number above 31.
    """
    from astropy.io import fits

    if seb0.members.tel_id.size and int(seb0.members.tel_id.max()) > MAX_TEL_ID:
        raise AstriError(
            f"Telescope {int(seb0.members.tel_id.max())} cannot be in a file of stereo events, "
            f"whose bits TRIGTEL end at telescope {MAX_TEL_ID}: give the telescopes other numbers."
        )
    block = header_bytes({**(cards or {}), **_own_cards(seb0)})
    hdus = [fits.PrimaryHDU(header=fits.Header.fromstring(block.decode("ascii")))]
    for name, (_, columns) in TABLES.items():
        arrays = getattr(seb0, ATTRIBUTES[name])
        hdu = table_of(
            name,
            [
                (column, form, unit, values, text)
                for (column, form, unit, text), values in zip(columns, arrays, strict=True)
            ],
            {},
        )
        for number, text in WORDS.get(name, {}).items():
            hdu.header.add_comment(f"{columns[-1][0]} {number}: {text}")
        hdus.append(hdu)
    with whole_file(path, overwrite=overwrite) as unfinished:
        fits.HDUList(hdus).writeto(unfinished, checksum=True)


def _own_cards(seb0: Seb0) -> dict[str, tuple[Any, str]]:
    return {
        "SEB0VERS": (VERSION, "version of this format"),
        "WINDOW": (seb0.window_us, "[us] half width of the window"),
        "TOFCORR": (seb0.tof_corrected, "times corrected for the way of light"),
        "NTELS": (len(seb0.tel_ids), "telescopes"),
        "NEVENTS": (len(seb0.events.number), "events"),
        "NSTEREO": (seb0.n_stereo, "of two telescopes or more"),
        "NREJECT": (len(seb0.rejected.row), "telescope events without a usable time"),
    }


def read_seb0(path: str | Path) -> Seb0:
    """Return the stereo events of a file of `write_seb0`.

    Raises
    ------
    AstriError
        When the file is missing, damaged, or of another kind or version.
    """
    path = Path(path)
    with _readable(path) as hdus:
        header = {card.keyword: card.value for card in hdus[0].header.cards if card.keyword}
        version = header.get("SEB0VERS")
        if version != VERSION:
            raise AstriError(
                f"{path} is no file of stereo events of this package (SEB0VERS is {version}, "
                f"{VERSION} is needed): give one that `astri-gpu build-events` wrote."
            )
        tables = {name: _read_table(path, hdus, name) for name in TABLES}
    seb0 = Seb0(
        **{ATTRIBUTES[name]: table for name, table in tables.items()},
        window_us=float(header["WINDOW"]),
        tof_corrected=bool(header["TOFCORR"]),
        header=header,
        path=path,
    )
    _check(seb0)
    return seb0


def _read_table(path: Path, hdus: Any, name: str) -> Any:
    kind, columns = TABLES[name]
    if name not in hdus:
        raise AstriError(
            f"{path} has no table {name}: give a file that `astri-gpu build-events` wrote."
        )
    data = hdus[name].data
    found = []
    for column, form, *_ in columns:
        if column not in data.names:
            raise AstriError(
                f"{path} has no column {column} in its table {name}: give a file that "
                "`astri-gpu build-events` wrote."
            )
        wanted = np.float64 if form == "D" else np.int64
        found.append(np.asarray(data[column]).astype(wanted))
    return kind(*found)


def _check(seb0: Seb0) -> None:
    """Refuse tables that do not fit each other; readers go by FIRST and NTRIGTEL."""
    events, members = seb0.events, seb0.members
    n_members = len(members.row)
    first = np.concatenate([[0], np.cumsum(events.n_tels)])
    fits = (
        np.array_equal(events.number, np.arange(len(events.number)))
        and np.array_equal(events.first, first[:-1])
        and first[-1] == n_members
        and np.array_equal(members.event, np.repeat(events.number, np.maximum(events.n_tels, 0)))
    )
    if not fits:
        raise AstriError(
            f"In {seb0.path} events and members do not belong together ({len(events.number)} "
            f"events, {n_members} members): make it again with `astri-gpu build-events`."
        )


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a FITS file whose checksums are right; one sentence for everything else."""
    from astropy.io import fits

    if not path.is_file():
        raise AstriError(f"There is no file of stereo events {path}: check the name.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with path.open("rb") as file, fits.open(file, checksum=True) as hdus:
                for hdu in hdus:
                    hdu.data  # noqa: B018 - read now, while warnings are errors
                yield hdus
    except AstriError:
        raise
    except Exception as error:  # astropy raises whatever it likes on damaged bytes
        reason = " ".join(str(error).split())
        raise AstriError(
            f"{path} cannot be read as a file of stereo events ({reason}): it is damaged or of "
            "another kind; give one that `astri-gpu build-events` wrote."
        ) from error
