"""The stage `preprocess`: packet files of a run to DL0 FITS files, one telescope per worker."""

import json
import logging
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.output_file import whole_file, write_json
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.stages.units import Unit, counted, run_units
from astri_gpu.store_disk import disk_errors

if TYPE_CHECKING:
    from astri_gpu.config_observation import PreprocessConfig
    from astri_gpu.dl0.run_description import RawFile, RunDescription
    from astri_gpu.packets.run_files import RunFiles

__all__ = ["RECORD", "Summary", "run"]

logger = logging.getLogger(__name__)

RECORD = "preprocess.json"
ENDING = ".preprocess.json"  # of the record of one telescope, which is written behind its files
NO_MATTER = ("wait_s", "block_mb")  # for what comes out
PIPE_WIDTH = 140  # characters where there is no terminal
DAMAGED = ("checksum", "header", "unknown type", "truncated", "unreadable")
REPEATED = ("repeated", "number used twice")
FOREIGN = ("another run", "another telescope")


@dataclass(frozen=True)
class Telescope:
    """What became of the packet file of one telescope, by this run of the stage."""

    record: Mapping[str, Any]
    """As it is in its file."""

    @property
    def n_images(self) -> int:
        """Return its packets with images of showers and calibration."""
        types = self.record["counts"]["types"]
        return sum(types.get(kind, {}).get("packets", 0) for kind in ("SCI", "CAL"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what was wrong with it."""
        return tuple(self.record["warnings"])


@dataclass(frozen=True)
class Summary:
    """What was read and written; `line` is the summary for the terminal.

    Counts are of the whole run, with telescopes that an earlier run of the stage has done;
    `n_bytes` of those that were done now.
    """

    n_telescopes: int
    n_before: int
    n_packets: int
    n_missing: int
    n_quarantined: int
    n_bytes_quarantined: int
    missing_telescopes: tuple[int, ...]
    n_bytes: int
    seconds: float
    output: Path
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return telescopes, packets, megabytes, rate and what is missing in one line."""
        if not self.n_bytes:
            return f"preprocess: nothing to do, {counted(self.n_before, 'telescope')} done before"
        before = f", {self.n_before} of them done before" if self.n_before else ""
        rate = self.n_bytes / 1e6 / self.seconds if self.seconds > 0 else 0.0
        bad = (
            f"; {counted(self.n_quarantined, 'piece')} of {self.n_bytes_quarantined:,} bytes "
            "quarantined"
            if self.n_quarantined
            else ""
        )
        lost = f"; {counted(self.n_missing, 'packet')} missing" if self.n_missing else ""
        numbers = ", ".join(map(str, self.missing_telescopes))
        without = (
            f"; without telescope{'s' * (len(self.missing_telescopes) > 1)} {numbers}"
            if numbers
            else ""
        )
        return (
            f"preprocess: {counted(self.n_telescopes, 'telescope')}{before}, "
            f"{counted(self.n_packets, 'packet')}, {self.n_bytes / 1e6:,.1f} MB in "
            f"{self.seconds:.1f} s ({rate:,.0f} MB/s){bad}{lost}{without}"
        )

    @property
    def facts(self) -> dict[str, str]:
        """Return key numbers in words."""
        bad = f", {self.n_bytes_quarantined:,} bytes quarantined" if self.n_quarantined else ""
        return {"packets": f"{self.n_packets:,}, {self.n_missing:,} missing{bad}"}


def run(config: "PreprocessConfig") -> Summary:
    """Write the DL0 files of a run into the folder `output`.

    The files of a telescope appear when its packet file has been read to the end, then its record;
    the record of the run comes last. Telescopes that have one are left as they are, so a run that
    was killed goes on by the same command.

    Raises
    ------
    UsageError
        When the input is no run, or the output was made from something else or with other options.
    AstriError
        When no packet file is there or holds a packet of the run, when one cannot be read (with
        on_error "stop"), or the output not be written.
    PartialFailure
        With on_error "skip", at the end, when some files could not be read and the rest is done.
    """
    from astri_gpu.packets.descriptor import read_descriptor
    from astri_gpu.packets.run_files import find_run

    begun = now()
    files = find_run(config.inputs(), wait_s=config.wait_s, tell=_teller(config))
    started = time.perf_counter()
    descriptor = config.descriptor or files.description.descriptor
    read_descriptor(descriptor)  # a format that cannot be read is said once
    output = Path(config.output)
    _check_output(output, files.description)
    warnings = _strange(files, config)
    units = [
        Unit(
            path,
            output / (path.stem + ENDING),
            replace(config, input=str(files.path), descriptor=descriptor),
        )
        for _, path in files.present
    ]
    outcome = run_units(
        "preprocess",
        units,
        _telescope,
        config,
        unit="MB",
        total=sum(entry.n_bytes for entry, _ in files.present) // 1_000_000,
        per_core=True,
        recorded=_recorded,
        ignored=NO_MATTER,
    )
    records = [_read(unit.output) for unit in units if unit.output.exists()]
    counts = [record["counts"] for record in records]
    usable = [record for record in records if record["counts"]["packets"]]
    done = [result.record["counts"]["bytes"] for result in outcome.done]
    without = sorted({*files.missing, *_useless(files, usable)})
    if records and not usable:
        raise AstriError(
            f"No packet of run {files.description.run} is in the packet files that {files.path} "
            f"names: {records[0]['warnings'][0]}."
        )
    summary = Summary(
        n_telescopes=len(usable),
        n_before=outcome.n_before,
        n_packets=sum(count["packets"] for count in counts),
        n_missing=sum(count["packets_missing"] for count in counts),
        n_quarantined=sum(count["pieces_quarantined"] for count in counts),
        n_bytes_quarantined=sum(count["bytes_quarantined"] for count in counts),
        missing_telescopes=tuple(without),
        n_bytes=sum(done),
        seconds=time.perf_counter() - started,
        output=output,
        warnings=(*warnings, *(text for record in records for text in record["warnings"])),
    )
    if done or not (output / RECORD).exists():
        with disk_errors(output):
            _finish(output, files, config, records, summary, begun)
    if done and (config.progress is not False or summary.warnings):
        _print_table(records, files)
    return outcome.finish(summary)


def _teller(config: "PreprocessConfig") -> Any:
    def tell(text: str) -> None:
        if config.progress is not False:
            print(f"astri-gpu preprocess: {text}", file=sys.stderr, flush=True)

    return tell


def _check_output(output: Path, description: "RunDescription") -> None:
    """Refuse a folder with another run in it."""
    if output.is_file():
        raise UsageError(f"The output {output} is a file, not a folder: choose another output.")
    if (output / RECORD).exists():
        found = _read(output / RECORD).get("run", {})
        if found.get("obs_id") != description.name.obs_id or found.get("date") != description.date:
            raise UsageError(
                f"The output {output} holds run {found.get('run')} of observation "
                f"{found.get('observation')} ({found.get('date')}), and the input is run "
                f"{description.run} of observation {description.observation} "
                f"({description.date}): choose another output."
            )


def _strange(files: "RunFiles", config: "PreprocessConfig") -> list[str]:
    """Tell of packet files that are missing or not of the run; refuse those that were named."""
    description = files.description
    which = f"run {description.run} of observation {description.observation} ({description.date})"
    texts = [
        f"Telescope {tel_id} is missing: its packet file is not beside {files.path.name}"
        for tel_id in files.missing
    ]
    for path in files.strangers:
        text = f"{path.name} is no packet file of {which}, which {files.path.name} describes"
        if files.given and config.on_error == "stop":
            raise UsageError(f"{text}: leave it out, or set on_error=skip.")
        texts.append(f"{text}: it is left out")
    for text in texts:
        logger.warning("%s", text)
    return texts


def _telescope(
    raw: Path, output: Path, config: "PreprocessConfig", shown: Progress | None
) -> Telescope:
    """Convert the packet file of one telescope; its record comes last."""
    from astri_gpu.dl0.run_description import read_description
    from astri_gpu.lineage.cards import step_cards
    from astri_gpu.packets.descriptor import read_descriptor
    from astri_gpu.packets.to_dl0 import packets_to_dl0

    description = read_description(config.input)
    entry = next(each for each in description.files if Path(each.name).name == raw.name)
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)  # it would speak of files that are about to be replaced
    record = provenance("preprocess", asdict(config), [raw, config.input], now())
    done_mb = done_bytes = 0

    def advance(n_bytes: int) -> None:
        nonlocal done_mb, done_bytes
        done_bytes += n_bytes
        if shown is not None and done_bytes // 1_000_000 > done_mb:
            shown.advance(done_bytes // 1_000_000 - done_mb)
            done_mb = done_bytes // 1_000_000

    assert config.descriptor is not None
    converted = packets_to_dl0(
        raw,
        output.parent,
        description,
        read_descriptor(config.descriptor),
        entry.tel_id,
        block_bytes=round(config.block_mb * 1e6),
        max_gap_s=config.max_gap_s,
        cards=step_cards(record),
        advance=advance,
    )
    account = converted.account
    texts = _against_description(entry, account.n_bytes, record["inputs"][0]["checksum"])
    texts += account.warnings(config.max_gap_s)
    if not account.n_kept:
        texts.insert(0, f"no packet of telescope {entry.tel_id} in run {description.run} in it")
    contents = {
        "telescope": entry.tel_id,
        "raw": raw.name,
        "counts": account.as_dict(),
        "warnings": [f"{raw.name} (telescope {entry.tel_id}): {'; '.join(texts)}"] if texts else [],
        "files": [path.name for path in converted.files],
        "seconds": round(converted.seconds, 3),
        "provenance": record,
    }
    with disk_errors(output):
        write_json(output, contents)
    return Telescope(contents)


def _against_description(entry: "RawFile", n_bytes: int, checksum: str) -> list[str]:
    """Return what differs from the description of a packet file."""
    if n_bytes != entry.n_bytes:
        return [f"{n_bytes} bytes instead of the {entry.n_bytes} of the description"]
    if entry.sha256 is not None and checksum != f"sha256:{entry.sha256.removeprefix('sha256:')}":
        return ["its checksum is not the one of the description, so bytes of it have changed"]
    return []


def _recorded(path: Path) -> Mapping[str, Any]:
    """Return the provenance of what was made from the packet file of a telescope."""
    record = _read(path)
    for name in record.get("files", ()):
        if not (path.parent / name).exists():
            raise AstriError(f"its file {name} is gone")
    return record.get("provenance") or {}


def _read(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AstriError(
            f"The record {path} cannot be read ({type(error).__name__}): remove it, so that its "
            "telescope is done again."
        ) from error
    if not isinstance(contents, dict):
        raise AstriError(f"{path} is no record of preprocess: remove it.")
    return contents


def _useless(files: "RunFiles", usable: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the telescopes whose packet files gave nothing."""
    return {entry.tel_id for entry, _ in files.present} - {each["telescope"] for each in usable}


def _finish(
    output: Path,
    files: "RunFiles",
    config: "PreprocessConfig",
    records: Sequence[Mapping[str, Any]],
    summary: Summary,
    begun: str,
) -> None:
    """Copy the description into the output, and write the record of the run."""
    copy = output / files.path.name
    if not (copy.exists() and copy.samefile(files.path)):
        with whole_file(copy, overwrite=True) as unfinished:
            shutil.copyfile(files.path, unfinished)
    name = files.description.name
    record = provenance("preprocess", asdict(config), [files.path], begun)
    record["inputs"] = [
        *(each["provenance"]["inputs"][0] for each in records),
        *record["inputs"],
    ]
    model = files.description.simulation_model
    write_json(
        output / RECORD,
        {
            "run": {
                "obs_id": name.obs_id,
                "date": name.date,
                "observation": name.observation,
                "run": name.run,
                "target": files.description.target,
            },
            **({} if model is None else {"simulation_model": model}),
            "telescopes": {
                str(each["telescope"]): {
                    key: each[key] for key in ("raw", "files", "counts", "warnings", "seconds")
                }
                for each in records
            },
            "missing_telescopes": list(summary.missing_telescopes),
            "warnings": list(summary.warnings),
            "seconds": round(summary.seconds, 3),
            "provenance": record,
        },
    )


def _print_table(records: Sequence[Mapping[str, Any]], files: "RunFiles") -> None:
    """Print what was in the packet file of each telescope, on stderr."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    kinds = list(dict.fromkeys(kind for each in records for kind in each["counts"]["types"]))
    table = Table(title=Text(f"preprocess: packets of {files.path.name}"))
    table.add_column("telescope")
    for column in (*kinds, "missing", "damaged", "repeated", "foreign", "order", "times", "MB"):
        table.add_column(column, justify="right")
    for each in records:
        counts = each["counts"]
        bad = counts["quarantined"]
        types = counts["types"].values()
        numbers = (
            *(counts["types"].get(kind, {}).get("packets", 0) for kind in kinds),
            counts["packets_missing"],
            *(
                sum(bad.get(reason, {}).get("pieces", 0) for reason in reasons)
                for reasons in (DAMAGED, REPEATED, FOREIGN)
            ),
            sum(each["out_of_order"] for each in types),
            counts["times_backwards"]
            + counts["time_gaps"]
            + counts["times_outside_run"]
            + sum(each["bad_nanoseconds"] for each in types),
        )
        table.add_row(
            str(each["telescope"]),
            *(f"{number:,}" if number else "-" for number in numbers),
            f"{counts['bytes'] / 1e6:,.1f}",
        )
    for tel_id in files.missing:
        table.add_row(f"{tel_id} (no file)")
    Console(stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH).print(table)
