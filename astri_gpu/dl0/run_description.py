"""The description of a run: what was observed, by which telescopes, into which files.

The data acquisition writes it when the last raw file of the run is closed, so its being there says
that the raw files are complete. Keys of the YAML file are the fields of `RunDescription`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from astri_gpu.dl0.names import RunName, run_name
from astri_gpu.errors import AstriError
from astri_gpu.output_file import whole_file

__all__ = ["RawFile", "RunDescription", "Telescope", "read_description", "write_description"]


@dataclass(frozen=True)
class Telescope:
    """A telescope of the run; position from the array reference point, m."""

    tel_id: int
    x_north_m: float
    y_west_m: float
    z_m: float


@dataclass(frozen=True)
class RawFile:
    """A packet file of the run."""

    name: str
    tel_id: int
    n_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class RunDescription:
    """What is known of a run besides its packets."""

    date: str
    """Of the evening, such as 20260115."""
    observation: int
    run: int
    target: str
    ra_deg: float
    dec_deg: float
    """Of the target, ICRS."""
    wobble_offset_deg: float
    wobble_angle_deg: float
    """Of the pointing from the target, North over East."""
    ra_pnt_deg: float
    dec_pnt_deg: float
    start_s: float
    stop_s: float
    """UTC seconds since 2020-01-01T00:00:00."""
    descriptor: str
    """Name of the packet format."""
    camera: str
    array: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    telescopes: tuple[Telescope, ...]
    files: tuple[RawFile, ...]
    simulation_model: str | None = None
    """Of a simulated run: what made it; None for a real one."""
    simulation: Mapping[str, Any] | None = None
    """Of a simulated run: its options."""

    @property
    def name(self) -> RunName:
        """Return the name of the run's files."""
        return run_name(
            self.date,
            self.target,
            (self.wobble_offset_deg, self.wobble_angle_deg),
            self.observation,
            self.run,
        )


def write_description(folder: Path, description: RunDescription) -> Path:
    """Write the description of a run into its folder, whole or not at all; return the path."""
    path = folder / description.name.description()
    contents = asdict(description)
    for key in ("telescopes", "files"):
        contents[key] = [dict(entry) for entry in contents[key]]
    with whole_file(path, overwrite=True) as unfinished:
        unfinished.write_text(yaml.safe_dump(contents, sort_keys=False), encoding="utf-8")
    return path


def read_description(path: str | Path) -> RunDescription:
    """Return the description of a run.

    Raises
    ------
    AstriError
        When the file cannot be read, is no YAML, or lacks a key or has one too many.
    """
    try:
        contents = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise AstriError(
            f"The description {path} cannot be read ({type(error).__name__}): get it again from "
            "where the raw files come from."
        ) from error
    known = {entry.name for entry in fields(RunDescription)}
    keys = set(contents) if isinstance(contents, Mapping) else set()
    needed = known - {"simulation_model", "simulation"}
    if not needed <= keys <= known:
        wrong = ", ".join(sorted((needed - keys) | (keys - known))) or "all keys"
        raise AstriError(
            f"The description {path} of a run does not fit ({wrong} missing or unknown): get it "
            "again from where the raw files come from."
        )
    try:
        contents["telescopes"] = tuple(Telescope(**entry) for entry in contents["telescopes"])
        contents["files"] = tuple(RawFile(**entry) for entry in contents["files"])
    except TypeError as error:
        raise AstriError(
            f"The description {path} has a telescope or file with other keys ({error}): get it "
            "again from where the raw files come from."
        ) from error
    return RunDescription(**contents)
