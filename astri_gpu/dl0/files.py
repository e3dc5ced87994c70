"""DL0 files: one FITS file per telescope and kind of data, with one table of its packets."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astri_gpu.dl0.columns import TABLES, check_columns, dl0_columns
from astri_gpu.dl0.header import RunHeader, run_cards, run_of_header
from astri_gpu.dl0.names import CODES, RunName
from astri_gpu.dl0.run_description import RunDescription
from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk import BulkWriter, Keywords, MappedTable, read_header
from astri_gpu.packets.descriptor import PacketType

__all__ = ["Dl0File", "Dl0Writer", "find_dl0", "read_dl0"]


class Dl0Writer(BulkWriter):
    """A DL0 file under construction, a context manager; ``.append(rows)`` takes whole packets.

    Parameters
    ----------
    path
        The file; `RunName.dl0` gives its name.
    description
        Of the run.
    tel_id
        Of the telescope.
    packet_type
        Of the packets.
    cards
        More of the primary header, such as those of provenance.
    overwrite
        Replace an existing file (at the very end).

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When the place cannot be written, the disk takes no more, or the run has no such telescope.
    """

    def __init__(
        self,
        path: str | Path,
        description: RunDescription,
        tel_id: int,
        packet_type: PacketType,
        *,
        cards: Keywords | None = None,
        overwrite: bool = False,
    ) -> None:
        kind = packet_type.kind
        super().__init__(
            path,
            TABLES[kind],
            dl0_columns(packet_type),
            run_cards(description, tel_id, kind) | dict(cards or {}),
            table_keywords={
                "APID": (packet_type.apid, "of the packets"),
                "TELID": (tel_id, "number of the telescope"),
                "OBS_ID": (description.name.obs_id, "number of the run"),
            },
            overwrite=overwrite,
        )


@dataclass(frozen=True)
class Dl0File:
    """A DL0 file that can be read; a context manager, or `close` it."""

    path: Path
    run: RunHeader
    """What the primary header says."""
    header: dict[str, Any]
    """Primary header: keyword -> value."""
    kind: str
    tel_id: int
    table: MappedTable

    @property
    def name(self) -> RunName:
        """Return the name of the run's files."""
        return self.run.name

    def close(self) -> None:
        """Give the file back."""
        self.table.close()

    def __enter__(self) -> "Dl0File":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_dl0(path: str | Path, *, columns: Sequence[str] | None = None) -> Dl0File:
    """Return a DL0 file, ready to be read.

    Parameters
    ----------
    path
        Of the file.
    columns
        That it must have; None = all that the stages need of its kind.

    Raises
    ------
    AstriError
        When the file cannot be read, is no FITS file or none of a run, is cut off, or lacks columns
        or has others of their names.
    """
    path = Path(path)
    header = read_header(path)
    run = run_of_header(header, str(path))
    if run.kind not in TABLES or run.tel_id is None:
        raise AstriError(
            f"{path} is a file of kind {run.kind}"
            f"{'' if run.tel_id is not None else ' of the array'}, not a DL0 file of a telescope "
            f"({', '.join(TABLES)}): give the files that `astri-gpu preprocess` wrote."
        )
    table = MappedTable(path, TABLES[run.kind])
    try:
        check_columns(table, run.kind, columns)
    except AstriError:
        table.close()
        raise
    return Dl0File(path, run, header, run.kind, run.tel_id, table)


def find_dl0(
    inputs: Sequence[str | Path], kind: str, *, columns: Sequence[str] | None = None
) -> tuple[Dl0File, ...]:
    """Return the DL0 files of one kind of one run, one per telescope, in order of their numbers.

    Parameters
    ----------
    inputs
        Folders, in which files are known by the code in their names, and files, which may be of
        other kinds too.
    kind
        SCI, CAL, HK or VAR.
    columns
        That each must have; None = all that the stages need.

    Raises
    ------
    AstriError
        When there is none, they are of different runs or twice of one telescope, or one cannot be
        read (see `read_dl0`).
    """
    found: list[Dl0File] = []
    try:
        for path in _candidates(inputs, kind):
            file = read_dl0(path, columns=columns)
            found.append(file)
            if file.kind != kind:
                raise AstriError(
                    f"{path} is named like a file of kind {kind}, and its header says {file.kind}: "
                    "was it renamed? Keep the names that `astri-gpu preprocess` gives."
                )
        if not found:
            raise AstriError(
                f"There is no DL0 file of kind {kind} (*_{CODES[kind]}.lv0.fits) in "
                f"{', '.join(map(str, inputs))}: give the folder that `astri-gpu preprocess` wrote."
            )
        found.sort(key=lambda file: file.tel_id)
        _check_one_run(found, kind)
    except BaseException:
        for file in found:
            file.close()
        raise
    return tuple(found)


def _candidates(inputs: Sequence[str | Path], kind: str) -> list[Path]:
    """Return the files of a kind, each once."""
    paths: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            paths += sorted(given.glob(f"*_{CODES[kind]}.lv0.fits"))
        elif _kind_of(given) in (kind, None):
            paths.append(given)
    return list({path.resolve(): path for path in paths}.values())


def _kind_of(path: Path) -> str | None:
    """Return the kind of a file that was given by its name; None if its header does not say."""
    kind = read_header(path).get("DATATYPE")
    return kind if isinstance(kind, str) else None


def _check_one_run(files: Sequence[Dl0File], kind: str) -> None:
    first = files[0]
    for before, file in itertools.pairwise(files):
        if file.run.obs_id != first.run.obs_id or file.run.date != first.run.date:
            raise AstriError(
                f"{first.path} is of run {first.run.run} of observation {first.run.observation} "
                f"({first.run.date}) and {file.path} of run {file.run.run} of observation "
                f"{file.run.observation} ({file.run.date}): give the files of one run."
            )
        if file.tel_id == before.tel_id:
            raise AstriError(
                f"{before.path} and {file.path} are both of telescope {file.tel_id} and of kind "
                f"{kind}: give one of them."
            )
