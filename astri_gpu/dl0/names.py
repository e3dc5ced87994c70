"""Names of the files of a run, in the newest form of ASTRI's that is known.

A stem such as ``20260115_MA01_Crab_W0.50p090_00000001_R_000002`` names night, telescope (MA alone
is the array), target, wobble, observation and run. The codes 0201 (events) and 0601 (technical
data) are ASTRI's; the others, which are not public, are ours.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from astri_gpu.errors import AstriError

__all__ = ["CODES", "DESCRIPTION_ENDING", "RAW_ENDING", "RunName", "parse_name", "run_name"]

CODES = {
    "SCI": "0201",  # events
    "CAL": "0101",  # interleaved calibration events
    "HK": "0601",  # housekeeping
    "VAR": "0602",  # variance images
    "SEB0": "0202",  # stereo events of the array
    "CAL1": "0102",  # camera constants of the array
}
RAW_ENDING = ".raw"
DESCRIPTION_ENDING = ".run.yaml"
RUNS_PER_OBSERVATION = 1_000_000
PATTERN = re.compile(
    r"(?P<date>\d{8})_MA(?P<tel>\d\d)?_(?P<target>[^_]+)_(?P<mode>[^_]+)"
    r"_(?P<observation>\d{8})_R_(?P<run>\d{6})(?:_(?P<code>\d{4}))?"
)


@dataclass(frozen=True)
class RunName:
    """What the name of a file says."""

    date: str
    """Of the evening, such as 20260115."""
    target: str
    mode: str
    """Such as W0.50p090: wobble of 0.5 deg towards position angle 90 deg."""
    observation: int
    run: int
    tel_id: int | None = None
    """None for files of the array."""
    code: str | None = None
    """Of the kind of data, see `CODES`; None for raw files."""

    @property
    def obs_id(self) -> int:
        """Return the number that stores and DL3 files have: observation x 1 000 000 + run."""
        return self.observation * RUNS_PER_OBSERVATION + self.run

    @property
    def stem(self) -> str:
        """Return the name without its ending."""
        array = "MA" if self.tel_id is None else f"MA{self.tel_id:02d}"
        code = "" if self.code is None else f"_{self.code}"
        return (
            f"{self.date}_{array}_{self.target}_{self.mode}_{self.observation:08d}_R_"
            f"{self.run:06d}{code}"
        )

    def raw(self, tel_id: int) -> str:
        """Return the name of the packet file of a telescope."""
        return replace(self, tel_id=tel_id, code=None).stem + RAW_ENDING

    def description(self) -> str:
        """Return the name of the file that describes the run, which is written last."""
        return replace(self, tel_id=None, code=None).stem + DESCRIPTION_ENDING

    def dl0(self, tel_id: int, kind: str) -> str:
        """Return the name of the DL0 file of a telescope; `kind` is SCI, CAL, HK or VAR."""
        return replace(self, tel_id=tel_id, code=CODES[kind]).stem + ".lv0.fits"

    def seb0(self) -> str:
        """Return the name of the file of stereo events."""
        return replace(self, tel_id=None, code=CODES["SEB0"]).stem + ".lv0.fits"

    def truth(self) -> str:
        """Return the name of the file with the truth of a simulated run."""
        return replace(self, tel_id=None, code=None).stem + "_truth.fits"

    def cal1(self) -> str:
        """Return the name of the file of camera constants."""
        return replace(self, tel_id=None, code=CODES["CAL1"]).stem + ".lv1a.fits"


def run_name(
    date: str, target: str, wobble: tuple[float, float], observation: int, run: int
) -> RunName:
    """Return the name of the files of a run.

    Parameters
    ----------
    date
        Of the evening, such as 20260115.
    target
        Of which the name has letters, digits, + and -.
    wobble
        Distance of the pointing from the target and its position angle, deg.
    observation, run
        Numbers.
    """
    plain = "".join(c for c in target if c.isalnum() or c in "+-") or "target"
    distance, angle = wobble
    return RunName(date, plain, f"W{distance:.2f}p{round(angle) % 360:03d}", observation, run)


def parse_name(path: str | Path) -> RunName:
    """Return what the name of a file says.

    Raises
    ------
    AstriError
        When it is no such name.
    """
    found = PATTERN.match(Path(path).name)
    if found is None:
        raise AstriError(
            f"{path} is not named like a file of a run "
            "(20260115_MA01_Crab_W0.50p090_00000001_R_000002...): keep the names of such files."
        )
    return RunName(
        date=found["date"],
        target=found["target"],
        mode=found["mode"],
        observation=int(found["observation"]),
        run=int(found["run"]),
        tel_id=None if found["tel"] is None else int(found["tel"]),
        code=found["code"],
    )
