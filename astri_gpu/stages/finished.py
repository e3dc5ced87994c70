"""Whether an output is finished: made by this stage, from this input, with these options."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, UsageError

__all__ = ["differences", "is_finished", "stored_provenance"]

# Options that say how the work is done and not what comes out, or that belong to a whole run.
INDIFFERENT = (
    "backend.threads",
    "batch_size",
    "debug",
    "execution",
    "input",
    "n_parts",
    "on_error",
    "output",
    "overwrite",
    "progress",
)
SHOWN = 3  # differences in a sentence


def stored_provenance(output: Path) -> Mapping[str, Any]:
    """Return the provenance of a finished store (`AstriError` if it is none of ours)."""
    from astri_gpu.store import open_store

    return open_store(output).attrs.get("provenance") or {}


def is_finished(
    stage: str,
    path: Path | None,
    output: Path,
    config: Any,
    recorded: Callable[[Path], Mapping[str, Any]] = stored_provenance,
    ignored: Sequence[str] = (),
) -> bool:
    """Return whether an earlier run of a stage made `output` from `path` with these options.

    Parameters
    ----------
    stage
        Name of the stage.
    path
        The only input; None for a stage without.
    output
        What the stage makes of it.
    config
        Configuration of the stage, a dataclass.
    recorded
        Function from a finished output to its provenance.
    ignored
        Dotted names of options that may differ, besides those that only say how the work is done.

    Raises
    ------
    UsageError
        When the output exists, and was made by something else, from something else or with other
        options.
    """
    if not output.exists():
        return False
    remedy = "choose another output or set overwrite=true."
    try:
        record = recorded(output)
    except AstriError as error:
        raise UsageError(
            f"The output {output} exists already, and not as an output of {stage} ({error}): "
            f"{remedy}"
        ) from error
    inputs = record.get("inputs", [])
    # Behind the first one is what the options name, such as a file of models.
    made_from = [Path(entry["path"]).name for entry in inputs[:1]]
    if record.get("stage") != stage or (path is not None and made_from != [path.name]):
        source = "" if path is None else f" from {path.name}"
        raise UsageError(
            f"The store {output} was made by {record.get('stage')} from "
            f"{', '.join(made_from) or 'something else'}, not by {stage}{source}: {remedy}"
        )
    changed = list(differences(record.get("config") or {}, config, ignored))
    if changed:
        more = "" if len(changed) <= SHOWN else f" and {len(changed) - SHOWN} more"
        raise UsageError(
            f"The store {output} was made with other options "
            f"({', '.join(changed[:SHOWN])}{more}): {remedy}"
        )
    if path is None:
        return True
    sources = [path, *(Path(entry["path"]) for entry in inputs[1:])]
    for origin, entry in zip(sources, inputs, strict=True):
        if _is_another(origin, entry, record.get("started", "")):
            raise UsageError(
                f"The store {output} was made from another {origin.name}, or {origin} has changed "
                f"since: {remedy}"
            )
    return True


def differences(
    recorded: Mapping[str, Any], config: Any, ignored: Sequence[str] = ()
) -> Iterator[str]:
    """Yield "cleaning.picture_pe 6.0 → 8.0" for every option that has changed.

    Options that the record does not have came later; their defaults stand for what was done.

    Parameters
    ----------
    recorded
        Configuration in a provenance record.
    config
        Configuration of the stage now, a dataclass.
    ignored
        Dotted names of further options that do not matter.
    """
    from astri_gpu.store_disk import json_ready

    before, now = dict(_flat(recorded)), dict(_flat(json_ready(asdict(config))))
    indifferent = {*INDIFFERENT, *ignored}
    for key, value in now.items():
        if key in indifferent or key.split(".")[0] in indifferent or key not in before:
            continue
        if before[key] != value:
            yield f"{key} {before[key]} → {value}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _is_another(path: Path, entry: Mapping[str, Any], started: str) -> bool:
    """Return whether an input is not what it was.

    Its checksum is compared where there is reason to: another place, or a change of its file (of
    the metadata of a store) after the output was begun. A whole production is not read for it.
    """
    from astri_gpu.store import fingerprint

    root = path / "zarr.json" if path.is_dir() else path
    try:
        begun = datetime.fromisoformat(started).timestamp()
        if str(path) == entry["path"] and root.stat().st_mtime < begun:
            return False
    except (ValueError, OSError):
        pass  # no time to compare with, or nothing there: the checksum decides
    return fingerprint(path) != entry.get("checksum")
