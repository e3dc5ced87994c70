"""Which columns a store has for features, and which of them may be used."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.options import did_you_mean
from astri_gpu.reconstruction.combine import COMBINED
from astri_gpu.reconstruction.derived import EVENT_DERIVED, IMAGE_DERIVED
from astri_gpu.reconstruction.expressions import Expression, parse
from astri_gpu.schema import TABLES
from astri_gpu.store import Store

__all__ = [
    "COMBINED",
    "PREDICTED",
    "Names",
    "advice",
    "check_features",
    "event_names",
    "image_names",
    "stored_event_columns",
    "stored_image_columns",
]

IMAGE_LEVELS = ("dl1", "dl2", "dl0", "simulation")
EVENT_LEVELS = ("dl2", "dl0", "simulation")

PREDICTED = ("tel_log_energy",)
"""What the energy forests of images add before gamma/hadron: log10(TeV)."""

_TRUTH = "it is known of simulated events only, and tells the forests what they are to find out"
_NUMBER = (
    "it numbers rows, runs or telescopes: simulated gammas and protons have numbers of their own"
)
_TIME = "it says when an event was taken, which gammas and protons of a simulation do not share"
_SOURCE = (
    "it refers to the assumed source position, which for simulated gammas is where they come from; "
    "astri_dist and astri_cos_delta_alpha say less and may be used"
)
_MADE = "`astri-gpu reconstruct` makes it after the forests have been asked"

# Names of our tables and of A-SciSoft's.
REFUSED = {
    **dict.fromkeys(("source_fov_lon", "source_fov_lat", "XSRCPOS", "YSRCPOS", "E0"), _TRUTH),
    **dict.fromkeys(("shower", "event_type", "VT"), "it is the same for all showers"),
    **dict.fromkeys(
        (
            "obs_id",
            "event_id",
            "event_index",
            "event",
            "tel_id",
            "calibration_index",
            "MCRUNNUM",
            "MCEVTNUM",
            "EVTNUM",
            "EVT_CTR",
        ),
        _NUMBER,
    ),
    **dict.fromkeys(("time_s", "time_ns", "TIME_S", "TIME_NS", "TIME_UTC"), _TIME),
    **dict.fromkeys(("astri_alpha", "astri_miss"), _SOURCE),
    "shower_id": "it numbers simulated showers: those of gammas and of protons have their own",
}
# Columns that a condition may ask for though a forest must not see them: they leave out telescopes
# or runs, and the same ones of every class.
ONLY_FEATURES = (_NUMBER, _TIME, _SOURCE)

MADE_LATER = {
    name
    for table in ("dl2/image", "dl2/event")
    for name in TABLES[table]
    if not name.startswith("stereo_") and name not in REFUSED
}
"""Columns that `reconstruct` writes: a store may have them from an earlier model."""
SIMULATED = {
    name
    for table in ("simulation/event", "simulation/image")
    for name in TABLES[table]
    if name not in REFUSED
}

_NOTES = {
    name: f"{name} refers to the source position that `process` assumed: for other directions "
    "the features mean something else"
    for name in ("astri_dist", "astri_cos_delta_alpha")
}
_ONE_SAMPLE = "the camera {camera} has one sample per image, so it is NaN"


@dataclass(frozen=True)
class Names(Collection[str]):
    """Columns that expressions may ask for.

    Attributes
    ----------
    names
        The columns.
    where
        What has them, for messages.
    useless
        Columns that are there but empty, with the reason.
    elsewhere
        Columns that stores of this kind may have, with what makes them.
    """

    names: frozenset[str]
    where: str
    useless: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a column, with something in it."""
        return name in self.names and name not in self.useless

    def __iter__(self) -> Iterator[str]:
        """Yield the names in alphabetical order."""
        return iter(sorted(self.names - self.useless.keys()))

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.names - self.useless.keys())


def stored_image_columns(store: Store, camera: str) -> dict[str, str]:
    """Return the path of every column with one value per image, those of events not among them.

    A column that several tables have is taken from the first of dl1, dl2, dl0, simulation.
    """
    found: dict[str, str] = {}
    for level in IMAGE_LEVELS:
        for name, entry in TABLES[f"{level}/image"].items():
            path = f"{level}/image/{camera}/{name}"
            if entry.dims == ("image",) and name not in found and path in store:
                found[name] = path
    return found


def stored_event_columns(store: Store) -> dict[str, str]:
    """Return the path of every column with one value per event.

    A column that several tables have is taken from the first of dl2, dl0, simulation.
    """
    found: dict[str, str] = {}
    for level in EVENT_LEVELS:
        for name, entry in TABLES[f"{level}/event"].items():
            path = f"{level}/event/{name}"
            if entry.dims == ("event",) and name not in found and path in store:
                found[name] = path
    return found


def image_names(store: Store, camera: str, extra: Collection[str] = ()) -> Names:
    """Return the columns that features of the images of a camera, and the filter, may ask for.

    Those are the columns of images, the columns of events (each image has those of its event) and
    derived ones (`astri_gpu.reconstruction.derived`), without what `reconstruct` makes.

    Parameters
    ----------
    store, camera
        Where to look.
    extra
        Names that come from somewhere else: `PREDICTED` for gamma/hadron.

    Raises
    ------
    AstriError
        When the store does not know the camera.
    """
    events = stored_event_columns(store)
    images = stored_image_columns(store, camera)
    if not images:
        raise AstriError(
            f"The store {store.path} has no images of {camera}; it has "
            f"{', '.join(store.cameras()) or 'no images at all'}."
        )
    stored = {**events, **images}
    names = {name for name in stored if name not in MADE_LATER}
    names |= {
        name
        for name, entry in IMAGE_DERIVED.items()
        if all(part in stored for part in (*entry.images, *entry.events))
    }
    samples = store.group_attrs(f"instrument/camera/{camera}").get("n_samples", 1)
    useless = {}
    if samples <= 1:
        reason = _ONE_SAMPLE.format(camera=camera)
        useless = {
            name: reason
            for name in TABLES["dl1/image"]
            if name.startswith(("timing_", "peak_time_"))
        }
    elsewhere = _makers("dl0/image", "dl1/image", "dl2/image", "dl0/event", "dl2/event")
    elsewhere |= dict.fromkeys(IMAGE_DERIVED, "process")
    return Names(
        frozenset(names | set(extra)),
        f"the store {store.path} (camera {camera})",
        useless,
        elsewhere,
    )


def event_names(store: Store, extra: Collection[str] = COMBINED) -> Names:
    """Return the columns that features of events may ask for.

    Those are the columns of events, without what `reconstruct` makes, and `extra`: the predictions
    of the images put together.
    """
    stored = stored_event_columns(store)
    names = {name for name in stored if name not in MADE_LATER}
    names |= {
        name
        for name, entry in EVENT_DERIVED.items()
        if all(part in stored for part in entry.events)
    }
    elsewhere = _makers("dl0/event", "dl2/event") | dict.fromkeys(EVENT_DERIVED, "process")
    return Names(frozenset(names | set(extra)), f"the store {store.path}", {}, elsewhere)


def _makers(*tables: str) -> dict[str, str]:
    """Return which stage makes a column of these tables."""
    return {
        name: "ingest" if table.startswith("dl0") else "process"
        for table in tables
        for name, entry in TABLES[table].items()
        if len(entry.dims) == 1 and name not in MADE_LATER
    }


def check_features(
    texts: Sequence[str], available: Names, where: str, *, condition: bool = False
) -> list[Expression]:
    """Return the expressions of a list of features, all of them fit for use.

    Parameters
    ----------
    texts
        Expressions.
    available
        From `image_names` or `event_names`.
    where
        Name of the list, for messages: "features.image_energy".
    condition
        Whether they are conditions, which may ask for numbers and times of images.

    Raises
    ------
    UsageError
        When one is no expression, or asks for a column that does not exist, that would give away
        what is to be found out, or that is empty.
    AstriError
        When the store lacks a column that such stores may have.
    """
    found = []
    for text in texts:
        try:
            expression = parse(text, condition=condition)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        for name in expression.names:
            _check_name(name, available, f"{where}: '{text}'", condition)
        found.append(expression)
    return found


def _check_name(name: str, available: Names, where: str, condition: bool) -> None:
    reason = REFUSED.get(name)
    if reason is None and (name.startswith("true_") or name in SIMULATED):
        reason = _TRUTH
    if reason is not None and not (condition and reason in ONLY_FEATURES):
        raise UsageError(f"{where} must not use {name}: {reason}. Leave it out.")
    if name in available:
        return
    if name in available.useless:
        raise UsageError(
            f"{where} cannot use {name}: {available.useless[name]} in {available.where}. Leave it "
            "out."
        )
    if name in available.elsewhere:
        raise AstriError(
            f"{where} needs {name}, which {available.where} does not have: "
            f"`astri-gpu {available.elsewhere[name]}` makes it."
        )
    if name in MADE_LATER or name in (*PREDICTED, *COMBINED):
        raise UsageError(f"{where} cannot use {name}: {_MADE}. Leave it out.")
    if any(name in TABLES[table] for table in ("dl1/image", "dl2/image", "dl0/image")):
        raise UsageError(f"{where} asks for {name}, which images have one by one, and events not.")
    near = did_you_mean(name, available) or "."
    raise UsageError(f"{where} asks for {name}, which is no column of images or events{near}")


def advice(expressions: Sequence[Expression]) -> list[str]:
    """Return what whoever uses these features should know: one sentence for each such column."""
    names = {name for expression in expressions for name in expression.names}
    return [_NOTES[name] for name in sorted(names & _NOTES.keys())]
