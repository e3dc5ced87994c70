"""The runs of a data set that belong to the target, with all parts that the analysis needs."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.science.index import hdu_index

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = ["Chosen", "Faults", "Head", "Target", "choose_runs"]

logger = logging.getLogger(__name__)

PARTS = {
    "events": "no event list",
    "gti": "no good time intervals (GTI)",
    "aeff": "no effective area",
    "edisp": "no energy dispersion",
    "psf": "no point spread function",
    "bkg": "no background model",
    "rad_max": "no RAD_MAX",
}
SAME_TARGET_DEG = 0.02
NEEDED = ("events", "gti", "aeff", "edisp")


@dataclass(frozen=True)
class Target:
    """What is looked at: name and place (deg, ICRS)."""

    name: str
    ra_deg: float
    dec_deg: float

    @property
    def position(self) -> Any:
        """Return the place as `astropy.coordinates.SkyCoord`."""
        from astropy.coordinates import SkyCoord

        return SkyCoord(self.ra_deg, self.dec_deg, unit="deg", frame="icrs")


@dataclass(frozen=True)
class Head:
    """What the header of an event list says about a run; NaN and "" where it does not."""

    obs_id: int
    path: Path
    object: str
    ra_obj: float
    dec_obj: float
    ra_pnt: float
    dec_pnt: float
    zenith_deg: float
    event_class: str
    telescope: str
    simulation_model: str
    stand_in: bool


@dataclass(frozen=True)
class Chosen:
    """The runs to analyse.

    `observations` are Gammapy's, in the order of `heads`; `point_like` says whether their responses
    are for a cut on the angle (RAD_MAX); `sources` are the index files or event lists given.
    """

    target: Target
    heads: tuple[Head, ...]
    observations: tuple[Any, ...]
    point_like: bool
    sources: tuple[Path, ...]

    def only(self, places: Sequence[int]) -> "Chosen":
        """Return the runs at some places."""
        return replace(
            self,
            heads=tuple(self.heads[place] for place in places),
            observations=tuple(self.observations[place] for place in places),
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """Return index files and event lists that were read, for the record."""
        return tuple(dict.fromkeys([*self.sources, *(head.path for head in self.heads)]))

    @property
    def notes(self) -> tuple[str, ...]:
        """Return how the data were simulated; nothing for real ones."""
        found = dict.fromkeys(head.simulation_model for head in self.heads)
        notes = [f"Simulated data: {model}" for model in found if model]
        if any(head.stand_in for head in self.heads):
            notes.append("Simulated events stand in for an observation (STANDIN).")
        return tuple(notes)


class Faults:
    """Runs that cannot be used: an error, or told and left out where the options say so."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self.left_out: dict[int, str] = {}
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def bad_run(self, obs_id: int, reason: str) -> None:
        """Leave a run out because something is wrong with it.

        Raises
        ------
        AstriError
            Unless bad runs are to be skipped.
        """
        if not self._skip:
            raise AstriError(
                f"Run {obs_id}: {reason}. Set on_error=skip to go on without such runs, or name "
                "those to use as runs=[...]."
            )
        self.leave_out(obs_id, reason)

    def leave_out(self, obs_id: int, reason: str) -> None:
        """Leave a run out, and tell it."""
        self.left_out[obs_id] = reason
        self.warn(f"Run {obs_id} is left out: {reason}")

    def warn(self, text: str) -> None:
        """Tell something that the reader has to know."""
        if text not in self.warnings:
            self.warnings.append(text)
            logger.warning("%s", text)

    def reasons(self) -> str:
        """Return why the runs were left out, in a few words each."""
        shown = [f"run {obs_id}: {reason}" for obs_id, reason in list(self.left_out.items())[:5]]
        more = len(self.left_out) - len(shown)
        return "; ".join(shown) + (f"; {more} more" if more else "")


def choose_runs(
    inputs: Sequence[Path], responses: Sequence[Path], config: "ScienceConfig", faults: Faults
) -> Chosen:
    """Return the runs of the target.

    Raises
    ------
    UsageError
        When there is no index file, a run that was asked for does not exist, or nobody says what
        the target is.
    AstriError
        When no run is left, or a run has not all parts (unless such are skipped).
    """
    from gammapy.data import DataStore

    table, sources = hdu_index(inputs, responses)
    store = DataStore(hdu_table=table)
    numbers = [int(number) for number in store.obs_ids]
    unknown = sorted(set(config.runs) - set(numbers))
    if unknown:
        raise UsageError(
            f"runs names {unknown[0]}, which {sources[0]} does not have: it has "
            f"{', '.join(map(str, numbers[:10]))}{' ...' if len(numbers) > 10 else ''}."
        )
    wanted = [number for number in numbers if number in config.runs or not config.runs]
    heads = list(_heads(table, wanted, faults))
    target = _target(heads, config)
    heads = list(_near(heads, target, config, faults))
    heads, observations, point_like = _complete(store, heads, faults)
    classes = sorted({head.event_class for head in heads})
    if len(classes) > 1:
        faults.warn(
            f"The runs are of different event classes ({', '.join(name or '-' for name in classes)}"
            "): their cuts differ, but each has its own response"
        )
    kinds = {bool(head.simulation_model or head.stand_in) for head in heads}
    if len(kinds) > 1:
        faults.warn("Simulated and real runs are analysed together")
    return Chosen(target, tuple(heads), tuple(observations), point_like, tuple(sources))


def _heads(table: Any, numbers: Sequence[int], faults: Faults) -> Iterator[Head]:
    """Yield what the event lists say, except of runs without a readable one."""
    from astropy.io import fits

    files: dict[int, tuple[str, str]] = {}
    for row in table:
        if row["HDU_TYPE"] == "events":
            files.setdefault(int(row["OBS_ID"]), (str(row["FILE_NAME"]), str(row["HDU_NAME"])))
    for obs_id in numbers:
        if obs_id not in files:
            faults.bad_run(obs_id, PARTS["events"])
            continue
        name, hdu = files[obs_id]
        try:
            with fits.open(name) as file:
                yield _head(obs_id, Path(name), file[0].header, file[hdu].header)
        except (OSError, KeyError, ValueError, TypeError) as error:
            words = " ".join(str(error).split())[:200].rstrip(".")
            faults.bad_run(obs_id, f"the events ({hdu}) of {name} cannot be read ({words})")


def _head(obs_id: int, path: Path, primary: Any, header: Any) -> Head:
    def number(name: str) -> float:
        value = header.get(name)
        return float(value) if isinstance(value, (int, float)) else float("nan")

    def text(name: str) -> str:
        return str(header.get(name, primary.get(name, "")) or "").strip()

    altitude = number("ALT_PNT")
    zenith = 90 - altitude if np.isfinite(altitude) else number("ZEN_PNT")
    return Head(
        obs_id=obs_id,
        path=path,
        object=text("OBJECT"),
        ra_obj=number("RA_OBJ"),
        dec_obj=number("DEC_OBJ"),
        ra_pnt=number("RA_PNT"),
        dec_pnt=number("DEC_PNT"),
        zenith_deg=zenith,
        event_class=text("EV_CLASS"),
        telescope=text("TELESCOP"),
        simulation_model=text("SIMMODEL"),
        stand_in=bool(header.get("STANDIN", False)),
    )


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


def _target(heads: Sequence[Head], config: "ScienceConfig") -> Target:
    """Return the target of the options, or the one that all event lists name."""
    if config.ra_deg is not None and config.dec_deg is not None:
        names = {head.object for head in heads if head.object}
        name = config.target or (names.pop() if len(names) == 1 else "target")
        return Target(name, config.ra_deg, config.dec_deg)
    placed = [head for head in heads if np.isfinite(head.ra_obj) and np.isfinite(head.dec_obj)]
    if config.target is not None:
        placed = [head for head in placed if _plain(head.object) == _plain(config.target)]
    if not placed:
        named = sorted({head.object for head in heads if head.object})
        raise UsageError(
            f"No event list says where the target {config.target or ''} is".replace("  ", " ")
            + (f" (they name {', '.join(named)})" if named else "")
            + ": give ra_deg and dec_deg."
        )
    first = Target(placed[0].object or "target", placed[0].ra_obj, placed[0].dec_obj)
    for head in placed:
        other = Target(head.object, head.ra_obj, head.dec_obj)
        if other.position.separation(first.position).deg > SAME_TARGET_DEG:
            raise UsageError(
                f"Run {placed[0].obs_id} is of {first.name} (RA {first.ra_deg:.3f}, Dec "
                f"{first.dec_deg:.3f}) and run {head.obs_id} of {other.name} (RA "
                f"{other.ra_deg:.3f}, Dec {other.dec_deg:.3f}): name the target, as target= or "
                "ra_deg= and dec_deg=, or the runs."
            )
    return first


def _near(
    heads: Sequence[Head], target: Target, config: "ScienceConfig", faults: Faults
) -> Iterator[Head]:
    """Yield the runs with the target in their field; the others are told."""
    from astropy.coordinates import SkyCoord

    far: list[tuple[float, int]] = []
    n_near = 0
    for head in heads:
        if not (np.isfinite(head.ra_pnt) and np.isfinite(head.dec_pnt)):
            faults.bad_run(head.obs_id, "its header has no pointing (RA_PNT, DEC_PNT)")
            continue
        pointing = SkyCoord(head.ra_pnt, head.dec_pnt, unit="deg", frame="icrs")
        distance = float(pointing.separation(target.position).deg)
        if distance <= config.max_offset_deg:
            n_near += 1
            yield head
        else:
            far.append((distance, head.obs_id))
    if not n_near:
        nearest = (
            f"the nearest, run {min(far)[1]}, points {min(far)[0]:.1f} deg away (max_offset_deg="
            f"{config.max_offset_deg:g})"
            if far
            else faults.reasons() or "there is no run"
        )
        raise AstriError(
            f"{target.name} (RA {target.ra_deg:.3f}, Dec {target.dec_deg:.3f}) is in the field of "
            f"no run: {nearest}."
        )
    if far:
        faults.notes.append(
            f"{len(far)} of {len(heads)} runs point more than {config.max_offset_deg:g} deg from "
            f"{target.name} and are left out."
        )


def _complete(
    store: Any, heads: Sequence[Head], faults: Faults
) -> tuple[list[Head], list[Any], bool]:
    """Return the runs that have all parts, and whether they are for a cut on the angle."""
    kept: list[Head] = []
    observations: list[Any] = []
    kinds: list[bool] = []
    for head in heads:
        try:
            observation, point_like = _observation(store, head)
        except AstriError as error:
            faults.bad_run(head.obs_id, str(error))
            continue
        kept.append(head)
        observations.append(observation)
        kinds.append(point_like)
    if not kept:
        raise AstriError(f"No run is left to analyse: {faults.reasons()}.")
    if len(set(kinds)) > 1:
        one, other = kept[kinds.index(True)].obs_id, kept[kinds.index(False)].obs_id
        raise AstriError(
            f"The response of run {one} is for a cut on the angle (POINT-LIKE), that of run {other}"
            " is not (FULL-ENCLOSURE): analyse them one kind at a time, with runs=[...]."
        )
    return kept, observations, kinds[0]


def _observation(store: Any, head: Head) -> tuple[Any, bool]:
    """Return a run with everything read, and whether its response is for a cut on the angle.

    Raises
    ------
    AstriError
        With what is missing, without full stop.
    """
    types = {str(kind) for kind in store.hdu_table["HDU_TYPE"][_rows_of(store, head.obs_id)]}
    missing = [PARTS[part] for part in NEEDED if part not in types]
    if missing:
        raise AstriError(f"it has {' and '.join(missing)}")
    observation = store.obs(head.obs_id, required_irf=["aeff", "edisp"])
    for part in (*NEEDED, *({"psf", "bkg", "rad_max"} & types)):
        try:
            value = getattr(observation, part)
        except Exception as error:  # whatever damage makes of the reader
            file, table = _place_of(store, head.obs_id, part)
            words = " ".join(str(error).split())[:200].rstrip(".")
            raise AstriError(
                f"the table {table} of {file} cannot be read ({type(error).__name__}: {words})"
            ) from error
        if value is None:
            file, table = _place_of(store, head.obs_id, part)
            raise AstriError(
                f"it has {PARTS[part]}: the table {table} is not in {file}, or is cut short"
            )
        if part not in ("gti", "rad_max"):
            setattr(observation, part, value)  # or Gammapy reads it again whenever it is needed
    if observation.meta is None:  # what Gammapy makes of a header that lacks them
        raise AstriError(
            "its header does not say where the telescopes are (GEOLON, GEOLAT, ALTITUDE)"
        )
    point_like = bool(observation.aeff.is_pointlike)
    if point_like and observation.rad_max is None:
        raise AstriError("its response is for a cut on the angle (POINT-LIKE) but has no RAD_MAX")
    if not point_like and "psf" not in types:
        raise AstriError(f"it has {PARTS['psf']}")
    if not float(observation.gti.time_sum.to_value("s")) > 0:
        raise AstriError("its good time intervals (GTI) are empty")
    return observation, point_like


def _place_of(store: Any, obs_id: int, part: str) -> tuple[str, str]:
    """Return file and name of a table; of a constant RAD_MAX, those of the effective area."""
    table = store.hdu_table[_rows_of(store, obs_id)]
    for kind in (part, "aeff"):
        for row in table[table["HDU_TYPE"] == kind]:
            return str(row["FILE_NAME"]), str(row["HDU_NAME"])
    return "the files", part


def _rows_of(store: Any, obs_id: int) -> Any:
    return np.asarray(store.hdu_table["OBS_ID"]) == obs_id
