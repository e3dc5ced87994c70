"""The files of an observation run that become one store: which there are, and that they fit."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from astri_gpu.calibration.cal1_file import ConstantsSet, cal1_header, read_cal1
from astri_gpu.calibration.housekeeping import Housekeeping, read_housekeeping
from astri_gpu.dl0.files import Dl0File, find_dl0
from astri_gpu.dl0.header import RunHeader
from astri_gpu.dl0.names import CODES
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.event_building.seb0_file import Seb0, read_seb0
from astri_gpu.instrument import ArrayLayout, CameraDescription
from astri_gpu.instrument.astri import astri_camera

__all__ = ["TRIGGER_PIXEL", "Dl0Options", "RunFiles"]

TRIGGER_PIXEL = "TRIGPIX"
"""Column of the pixels that fired, which files of other packets may not have."""

MADE_BY = {"SEB0": ("events", "build-events"), "CAL1": ("constants", "calibrate")}
"""Option that names such a file, and stage that writes it."""
NOTE = "positions of the telescopes as the DL0 files of the run have them"


@dataclass(frozen=True)
class Dl0Options:
    """What the DL0 files of a run do not say, or say in files of their own.

    `events` and `constants` empty: files of these names in the folder, or beside it. A telescope
    without housekeeping or constants is an error, with `on_error` "keep" it is left out.
    """

    events: str | None = None
    constants: tuple[str, ...] = ()
    saturation_adc: float | None = None
    min_telescopes: int | None = None
    """That have to be good for good time; None = all of the run."""
    on_error: str = "stop"
    allowed_telescopes: tuple[int, ...] = ()


@dataclass
class RunFiles:
    """The files of one run, a context manager that closes them.

    Attributes
    ----------
    folder
        Of the DL0 files.
    header
        What the first of them says of the run.
    seb0, sets
        Stereo events and camera constants.
    layout
        Array of the telescopes that are used, in order of their numbers.
    events, calibration, variances
        telescope -> file; of `events` all telescopes, of the others those that have one.
    housekeeping
        telescope -> its samples.
    housekeeping_files
        The same as files.
    inputs
        What provenance has to name: folder, stereo events, constants.
    notes
        Sentences about what is missing or left out.
    """

    folder: Path
    options: Dl0Options
    header: RunHeader = field(init=False)
    seb0: Seb0 = field(init=False)
    sets: tuple[ConstantsSet, ...] = field(init=False)
    layout: ArrayLayout = field(init=False)
    events: dict[int, Dl0File] = field(default_factory=dict)
    calibration: dict[int, Dl0File] = field(default_factory=dict)
    variances: dict[int, Dl0File] = field(default_factory=dict)
    housekeeping: dict[int, Housekeeping] = field(default_factory=dict)
    housekeeping_files: dict[int, Dl0File] = field(default_factory=dict)
    inputs: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __enter__(self) -> "RunFiles":
        self._stack = ExitStack()
        try:
            self._read()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def tel_ids(self) -> tuple[int, ...]:
        """Return the telescopes that are used."""
        return tuple(self.events)

    @property
    def camera(self) -> CameraDescription:
        """Return the camera, which all telescopes have."""
        return self.layout.cameras[0]

    @property
    def has_trigger_pixels(self) -> bool:
        """Return whether all files say which pixels fired."""
        files = (*self.events.values(), *self.calibration.values())
        return all(
            TRIGGER_PIXEL in file.table.columns
            and file.table.columns[TRIGGER_PIXEL].shape == (self.camera.geometry.n_pixels,)
            for file in files
        )

    def _read(self) -> None:
        if not self.folder.is_dir():
            raise UsageError(
                f"The input {self.folder} is no folder: format=dl0_fits takes the folder of the "
                "DL0 files of a run."
            )
        self.events = self._files("SCI")
        first = next(iter(self.events.values()))
        self.header = first.run
        for kind, files in (
            ("CAL", self.calibration),
            ("HK", self.housekeeping_files),
            ("VAR", self.variances),
        ):
            if any(self.folder.glob(f"*_{CODES[kind]}.lv0.fits")):
                files.update(self._files(kind))
        self._choose_allowed()
        events = self._beside(self.options.events, self.header.name.seb0(), "stereo events", "SEB0")
        self.seb0 = read_seb0(events)
        _same_run(events, self.seb0.obs_id, self.header)
        constants = [Path(path) for path in self.options.constants] or [
            self._beside(None, self.header.name.cal1(), "camera constants", "CAL1")
        ]
        for path in constants:
            _same_run(path, cal1_header(path).get("OBS_ID"), self.header)
        self.sets = tuple(entry for path in constants for entry in read_cal1(path))
        self.inputs = [self.folder, events, *constants]
        self._check_telescopes()
        self.housekeeping = {
            tel_id: read_housekeeping(file) for tel_id, file in self.housekeeping_files.items()
        }
        self._check_pointing()
        self.layout = self._layout()
        self._check_shapes()

    def _files(self, kind: str) -> dict[int, Dl0File]:
        found = find_dl0([self.folder], kind)
        for file in found:
            self._stack.enter_context(file)
        if kind != "SCI":
            _same_run(found[0].path, found[0].run.obs_id, self.header)
        return {file.tel_id: file for file in found}

    def _beside(self, given: str | None, name: str, what: str, kind: str) -> Path:
        """Return the file that was given, or the one of this name in or beside the folder."""
        if given is not None:
            return Path(given)
        places = [self.folder / name, self.folder.resolve().parent / name]
        for path in places:
            if path.is_file():
                return path
        option, stage = MADE_BY[kind]
        raise UsageError(
            f"There is no file of {what} {name} in {self.folder} or beside it: give {option}=FILE "
            f"that `astri-gpu {stage}` wrote."
        )

    def _choose_allowed(self) -> None:
        allowed = self.options.allowed_telescopes
        unknown = sorted(set(allowed) - set(self.events))
        if unknown:
            raise UsageError(
                f"allowed_telescopes asks for {unknown}, but {self.folder} has events of the "
                f"telescopes {_list(self.events)}."
            )
        if allowed:
            self._keep(set(allowed))

    def _keep(self, tel_ids: set[int]) -> None:
        for files in (self.events, self.calibration, self.variances, self.housekeeping_files):
            for tel_id in set(files) - tel_ids:
                del files[tel_id]

    def _check_telescopes(self) -> None:
        """Raise, or leave out, where a telescope lacks a file that it needs."""
        seen = set(self.seb0.tel_ids)
        lost = sorted(seen - set(self.events) - self._not_allowed())
        if lost:
            raise AstriError(
                f"{self.seb0.path} has events of the telescopes {_list(lost)}, whose files "
                f"(*_{CODES['SCI']}.lv0.fits) are not in {self.folder}: give the folder that it "
                "was made from, or build the events again."
            )
        unseen = sorted(set(self.events) - seen)
        if unseen:
            self.notes.append(
                f"Telescope {_list(unseen)} has events in {self.folder} and none in "
                f"{self.seb0.path}: left out."
            )
        known = {entry.tel_id for entry in self.sets}
        wanted = set(self.events) & seen
        bad = {
            "no camera constants (CAL1)": wanted - known,
            f"no housekeeping (*_{CODES['HK']}.lv0.fits), so that nobody knows where it pointed":
                wanted - set(self.housekeeping_files),
        }  # fmt: skip
        self._without(bad)
        absent = sorted(set(self.header.tel_ids) - set(self.events) - self._not_allowed())
        if absent:
            self.notes.append(
                f"The run has the telescopes {_list(self.header.tel_ids)}; there are no events of "
                f"{_list(absent)}."
            )
        optional = {"calibration events": self.calibration, "variance images": self.variances}
        for what, files in optional.items():
            missing = sorted(set(self.events) - set(files))
            if missing:
                whose = f"telescope {_list(missing)}" if files else "any telescope"
                self.notes.append(f"There are no {what} of {whose}.")

    def _check_pointing(self) -> None:
        silent = {
            tel_id
            for tel_id, samples in self.housekeeping.items()
            if not np.isfinite(samples.alt).any()
        }
        self._without({"no pointing in all of its housekeeping": silent & set(self.events)})
        self.housekeeping = {t: self.housekeeping[t] for t in self.events}
        for tel_id, samples in self.housekeeping.items():
            if samples.n_bad_pointings or samples.n_bad_times:
                self.notes.append(
                    f"Housekeeping of telescope {tel_id}: {samples.n_bad_pointings} samples with a "
                    f"direction that cannot be and {samples.n_bad_times} without a time of their "
                    "own were left out."
                )

    def _without(self, bad: dict[str, set[int]]) -> None:
        """Raise for telescopes that cannot be used, or leave them out if so wished."""
        for what, tel_ids in bad.items():
            if tel_ids and self.options.on_error != "keep":
                raise AstriError(
                    f"Telescope {_list(sorted(tel_ids))} of {self.folder} has {what}: make the "
                    "file, or set on_error=keep to leave the telescope out."
                )
            if tel_ids:
                self.notes.append(f"Telescope {_list(sorted(tel_ids))} has {what}: left out.")
        self._keep(set(self.events) & set(self.seb0.tel_ids) - set().union(*bad.values()))
        if not self.events:
            raise AstriError(f"No telescope of {self.folder} can be used: " + " ".join(self.notes))

    def _not_allowed(self) -> set[int]:
        allowed = self.options.allowed_telescopes
        return {*self.header.tel_ids, *self.seb0.tel_ids} - set(allowed) if allowed else set()

    def _layout(self) -> ArrayLayout:
        camera = astri_camera()
        if self.header.camera != camera.name:
            raise AstriError(
                f"The camera of the run is {self.header.camera} (INSTRUME), of which astri_gpu "
                f"knows no pixels: it knows {camera.name}."
            )
        saturation = self.options.saturation_adc
        camera = replace(camera, readout=replace(camera.readout, saturation_adc=saturation))
        if self.header.simulation_model is not None:
            # Simulated telescopes image directions by f x angle exactly, see simulation/layout.
            focal_length = camera.optics.focal_length_m
            optics = replace(camera.optics, effective_focal_length_m=focal_length)
            camera = replace(camera, optics=optics)
        places = np.array([file.run.position for file in self.events.values()], dtype=np.float64)
        return ArrayLayout(
            name=self.header.array,
            tel_id=np.array(self.tel_ids, dtype=np.uint16),
            x=places[:, 0],
            y=places[:, 1],
            z=places[:, 2],
            camera_index=np.zeros(len(places), dtype=np.int32),
            cameras=(camera,),
            note=NOTE,
            **self.header.site._asdict(),
        )

    def _check_shapes(self) -> None:
        """Refuse counts, variances and constants of other cameras than that of the layout."""
        gains, pixels = self.camera.readout.n_gains, self.camera.geometry.n_pixels
        for files, column, shape in (
            (self.events, "ADC", (gains, pixels)),
            (self.calibration, "ADC", (gains, pixels)),
            (self.variances, "VARIANCE", (pixels,)),
        ):
            for file in files.values():
                found = file.table.columns[column].shape
                if found != shape:
                    raise AstriError(
                        f"{column} of {file.path} has the shape {found}, and {self.camera.name} "
                        f"{shape}: is it of another camera?"
                    )
        for entry in self.sets:
            if entry.pedestal.shape != (gains, pixels):
                raise AstriError(
                    f"The constants of telescope {entry.tel_id} in "
                    f"{', '.join(map(str, self.inputs[2:]))} have the shape "
                    f"{entry.pedestal.shape}, and {self.camera.name} {(gains, pixels)}: are they "
                    "of another camera?"
                )


def _same_run(path: Path, obs_id: object, header: RunHeader) -> None:
    if obs_id is not None and obs_id != header.obs_id:
        raise AstriError(
            f"{path} is of the run {obs_id} and the DL0 files are of {header.obs_id} "
            "(observation x 1 000 000 + run): give files of one run."
        )


def _list(numbers: Iterable[int] | Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
