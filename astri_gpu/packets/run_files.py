"""The packet files of a run: which there should be, which there are, and waiting for them."""

import glob
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from astri_gpu.dl0.names import DESCRIPTION_ENDING, RAW_ENDING
from astri_gpu.dl0.run_description import RawFile, RunDescription, read_description
from astri_gpu.errors import AstriError, UsageError

__all__ = ["RunFiles", "find_run"]

POLL_S = 1.0


@dataclass(frozen=True)
class RunFiles:
    """The packet files of a run."""

    description: RunDescription
    path: Path
    """Of the description."""
    present: tuple[tuple[RawFile, Path], ...]
    """Files to read, in order of telescopes, with what the description says of them."""
    missing: tuple[int, ...]
    """Telescopes of the run that have no file here."""
    strangers: tuple[Path, ...]
    """Packet files that are not of this run."""
    given: bool
    """Whether the packet files were named one by one."""


def find_run(
    inputs: Sequence[str],
    *,
    wait_s: float = 0.0,
    tell: Callable[[str], None] = lambda text: None,
    sleep: Callable[[float], None] = time.sleep,
) -> RunFiles:
    """Return the packet files of a run, when they are complete or the time to wait is over.

    A run is complete when its description is there and the files have the sizes that it names.

    Parameters
    ----------
    inputs
        Folders, descriptions, packet files, or patterns of them, of one run.
    wait_s
        How long to wait.
    tell, sleep
        Are called with what is waited for (once), and to wait.

    Raises
    ------
    UsageError
        When there is no description, or more than one.
    AstriError
        When the description cannot be read, or none of the packet files is there.
    """
    deadline, told = time.monotonic() + wait_s, False
    while True:
        left = deadline - time.monotonic()
        try:
            run = _find(inputs)
            lacking = _lacking(run)
        except AstriError as error:
            if left <= 0:
                raise
            lacking = str(error)
        else:
            if not lacking or left <= 0:
                break
        if not told:
            tell(f"waiting up to {wait_s:g} s for the run to be complete ({lacking})")
            told = True
        sleep(min(POLL_S, max(left, 0.01)))
    if not run.present:
        strange = f" ({run.strangers[0].name} is of another run)" if run.strangers else ""
        raise AstriError(
            f"None of the packet files that {run.path} names is beside it{strange}: put them there."
        )
    return run


def _find(inputs: Sequence[str]) -> RunFiles:
    paths = [path for given in inputs for path in _matches(given)]
    named = [path for path in paths if path.is_file() and not _is_description(path)]
    descriptions = {path.resolve(): path for path in paths if _is_description(path)}
    for folder in (*(path for path in paths if path.is_dir()), *(path.parent for path in named)):
        found = sorted(folder.glob("*" + DESCRIPTION_ENDING))
        descriptions |= {path.resolve(): path for path in found}
    where = ", ".join(inputs)
    if not descriptions:
        raise UsageError(
            f"There is no description of a run (*{DESCRIPTION_ENDING}) at {where}: it is written "
            "when the run is complete. Check the name, or wait for it with wait_s=3600."
        )
    if len(descriptions) > 1:
        names = ", ".join(sorted(path.name for path in descriptions.values()))
        raise UsageError(
            f"There are {len(descriptions)} descriptions of runs at {where} ({names}): give one of "
            "them as the input."
        )
    path = next(iter(descriptions.values()))
    description = read_description(path)
    folder = path.parent
    files = {Path(entry.name).name: entry for entry in description.files}
    if len({entry.tel_id for entry in files.values()}) != len(description.files):
        raise AstriError(
            f"The description {path} names a telescope or a file twice: get it again from where "
            "the raw files come from."
        )
    beside = {each.name: each for each in sorted(folder.glob("*" + RAW_ENDING))}
    chosen = {each.name: each for each in named} if named else beside
    present = tuple(
        sorted(
            ((entry, chosen[name]) for name, entry in files.items() if name in chosen),
            key=lambda pair: pair[0].tel_id,
        )
    )
    there = {entry.tel_id for name, entry in files.items() if name in beside or name in chosen}
    of_run = {telescope.tel_id for telescope in description.telescopes} | {
        entry.tel_id for entry in description.files
    }
    return RunFiles(
        description=description,
        path=path,
        present=present,
        missing=tuple(sorted(of_run - there)),
        strangers=tuple(each for name, each in chosen.items() if name not in files),
        given=bool(named),
    )


def _matches(given: str) -> list[Path]:
    if Path(given).exists():
        return [Path(given)]
    return [Path(path) for path in sorted(glob.glob(given, recursive=True))]


def _is_description(path: Path) -> bool:
    return path.name.endswith(DESCRIPTION_ENDING) and path.is_file()


def _lacking(run: RunFiles) -> str:
    """Return what is not complete, "" if everything is."""
    if run.missing:
        return f"no file of telescope {', '.join(map(str, run.missing))}"
    for entry, path in run.present:
        size = path.stat().st_size
        if size != entry.n_bytes:
            return f"{path.name} has {size} of {entry.n_bytes} bytes"
    return ""
