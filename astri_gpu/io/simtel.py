"""From a sim_telarray file to a DL0 store, event by event and with flat memory.

What is read, and how, follows ctapipe 0.28's ``SimTelEventSource`` (SIMTEL_TO_CTA_EVENT_TYPE,
pointing, calibration, true images), so that both give the same numbers for the same file.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io.row_block import RowBlock
from astri_gpu.io.simtel_file import Event, EventReader
from astri_gpu.io.simtel_images import CameraTables, Image, image_counts
from astri_gpu.io.simtel_instrument import (
    array_layout,
    has_true_images,
    particle_kind,
    simulation_attrs,
    thrown_showers,
    with_samples,
)
from astri_gpu.io.simtel_truth import (
    SUBARRAY,
    TRUTH_COLUMNS,
    UNKNOWN_TRUTH,
    cta_event_type,
    impact_distance,
    pointing,
    shower_truth,
)
from astri_gpu.provenance import now, provenance
from astri_gpu.store import StoreWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["IngestOptions", "IngestSummary", "ingest_file"]

# Above this sum a missing true image means lost data, not a dim image (ctapipe issue 2344).
BRIGHT_WITHOUT_TRUE_IMAGE = 1_000_000


class Counter(Protocol):
    """What `ingest_file` needs of a progress display."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more images."""


@dataclass(frozen=True)
class IngestOptions:
    """How to read a file; the names are those of the stage's configuration.

    `on_error` "stop" refuses damaged files, "keep" writes their complete events. `obs_id` None
    takes the run number of the file, `max_events` None takes all events.
    """

    calibration_events: bool = True
    true_images: bool = True
    on_error: str = "stop"
    allowed_telescopes: tuple[int, ...] = ()
    max_events: int | None = None
    images_per_chunk: int = 1024
    overwrite: bool = False
    obs_id: int | None = None


@dataclass(frozen=True)
class IngestSummary:
    """What came of one file; `warnings` has one sentence for everything that was left out."""

    path: Path
    output: Path
    n_events: int
    n_images: int
    seconds: float
    truncated: bool
    warnings: list[str]
    facts: Mapping[str, str] = field(default_factory=dict)
    """Numbers of an observation run, in words."""


def ingest_file(
    path: str | Path,
    output: str | Path,
    options: IngestOptions = IngestOptions(),
    progress: Counter | None = None,
    config: Mapping[str, Any] | None = None,
) -> IngestSummary:
    """Write the DL0 store of one sim_telarray file and return what is in it.

    Parameters
    ----------
    path
        The file, plain or packed with gzip or zstd.
    output
        The store to make.
    options
        What to read.
    progress
        Is told about every event's images.
    config
        Recorded in the store instead of `options`.

    Raises
    ------
    UsageError
        When the output exists (and `overwrite` is not set), or an allowed telescope is unknown.
    AstriError
        When the file is no EventIO file, damaged, truncated, without events or calibration.
    """
    path, output = Path(path), Path(output)
    started, clock = now(), time.perf_counter()
    config = asdict(options) if config is None else config
    attrs = {"data_level": "DL0", "source": path.name, "config": config}
    with (
        create(output, overwrite=options.overwrite, attrs=attrs) as writer,
        EventReader(path, options.allowed_telescopes, options.calibration_events) as reader,
    ):
        ingest = _Ingest(reader, writer, options)
        for event in reader:
            n_images = ingest.add(event)
            if progress is not None:
                progress.advance(n_images)
            if options.max_events is not None and ingest.n_events >= options.max_events:
                break
        else:
            ingest.check_complete()
        ingest.finish()
        writer.attrs["provenance"] = provenance("ingest", config, [path], started)
    return IngestSummary(
        path=path,
        output=output,
        n_events=ingest.n_events,
        n_images=ingest.n_images,
        seconds=time.perf_counter() - clock,
        truncated=ingest.truncated,
        warnings=ingest.warnings(),
    )


class _Ingest:
    """The state of one ingest: tables, counters, and what was left out."""

    def __init__(self, reader: EventReader, writer: StoreWriter, options: IngestOptions) -> None:
        self.reader, self.writer, self.options = reader, writer, options
        self.file, self.path = reader.file, reader.path
        self.layout: ArrayLayout
        self.layout, self._rows = array_layout(self.file, self.path, options.allowed_telescopes)
        self.obs_id = int(self.file.header["run"]) if options.obs_id is None else options.obs_id
        self.n_events = self.n_images = 0
        self.truncated = False
        self._pseudo_id = 0
        self._current = ""  # the event at hand, for messages
        self._primaries: set[int] = set()
        self._partial = False
        self._left_out: dict[str, int] = {}
        self._position = np.column_stack([self.layout.x, self.layout.y, self.layout.z])
        self._place = {int(number): row for row, number in enumerate(self.layout.tel_id)}
        self._true_images = options.true_images and bool(has_true_images(self.file.history))
        self._cameras = [
            CameraTables(
                writer,
                camera,
                self.path,
                keep=options.on_error == "keep",
                true_images=self._true_images,
                images_per_chunk=options.images_per_chunk,
            )
            for camera in self.layout.cameras
        ]
        sizes = {"tel": self.layout.n_telescopes}
        keys = ["obs_id", "event_id"]
        self._events = RowBlock(
            writer,
            "dl0/event",
            [*keys, "time_s", "time_ns", "event_type", "array_alt", "array_az", "tel_mask"],
            sizes=sizes,
        )
        self._showers = RowBlock(writer, "simulation/event", [*keys, *TRUTH_COLUMNS], sizes={})

    def add(self, event: Event) -> int:
        """Write one event and return its number of images."""
        event_id = int(event.get("event_id", 0))
        if event_id == 0:  # calibration events have no number of their own
            self._pseudo_id -= 1
            event_id = self._pseudo_id
        self._current = f"event {event_id}"
        trigger = event["trigger_information"]
        triggered = [int(number) for number in trigger["triggered_telescopes"]]
        event_type = cta_event_type(event)
        impact = self._write_shower(event_id, event, event_type)
        self._write_event(event_id, event_type, trigger, triggered, event)

        index = self.n_events
        self.n_events += 1
        n_before = self.n_images
        for tel_id, telescope_event in event["telescope_events"].items():
            self._add_image(int(tel_id), telescope_event, event, index, triggered, impact)
        return self.n_images - n_before

    def check_complete(self) -> None:
        """Raise an `AstriError` for a file that ends too early, unless its events are kept."""
        damage = self.reader.damage
        if damage is None:
            return
        text = f"The file {self.path} {damage} {self.reader.place}"
        if self.options.on_error != "keep":
            raise AstriError(
                f"{text}: copy it again, or set on_error=keep to keep the "
                f"{self.n_events} complete events before."
            )
        self.truncated = self._partial = True
        self.reader.notes.append(f"{text}; its {self.n_events} complete events were kept.")

    def finish(self) -> None:
        """Write instrument, run header and root attributes."""
        if not self.n_images:
            self._no_images()
        n_samples = {
            tables.camera.name: tables.n_samples
            for tables in self._cameras
            if tables.n_samples is not None
        }
        self._events.flush()
        self._showers.flush()
        for tables in self._cameras:
            tables.flush()
        write_layout(self.writer, with_samples(self.layout, n_samples))
        header = simulation_attrs(self.file.mc_run_headers, int(self.file.header["run"]))
        # Thrown showers do not belong to a part of the events: whoever weights must know.
        partial = self._partial or self.options.max_events is not None
        self.writer.set_attrs("simulation", {**header, "partial": partial})
        thrown = thrown_showers(self.file.histograms)
        if thrown is not None:
            group = "simulation/thrown"
            for name in ("histogram", "core_distance_edges", "energy_edges"):
                self.writer.write(group, name, getattr(thrown, name))
            self.writer.set_attrs(group, {"n_entries": thrown.n_entries})
        self.writer.attrs.update(
            kind=particle_kind(self._primaries),
            obs_id=self.obs_id,
            truncated=self.truncated,
            n_events=self.n_events,
            n_images=self.n_images,
        )

    def warnings(self) -> list[str]:
        """Return one sentence for everything that was met and left out."""
        notes = list(self.reader.notes)
        for tables in self._cameras:
            notes += tables.notes
        notes += [f"{self.path}: {count} {what}." for what, count in self._left_out.items()]
        return notes

    def _no_images(self) -> None:
        if self._left_out:
            reasons = "; ".join(f"{count} {what}" for what, count in self._left_out.items())
            raise AstriError(f"No image of {self.path} could be used: {reasons}.")
        allowed = list(self.options.allowed_telescopes)
        of_telescopes = f" of the telescopes {allowed}" if allowed else ""
        raise AstriError(
            f"The file {self.path} holds no triggered event{of_telescopes}: there is nothing to "
            "write."
        )

    def _leave_out(self, what: str) -> None:
        self._left_out[what] = self._left_out.get(what, 0) + 1

    def _add_image(
        self,
        tel_id: int,
        telescope_event: Mapping[str, Any],
        event: Event,
        index: int,
        triggered: list[int],
        impact: NDArray[np.float64],
    ) -> None:
        if tel_id not in triggered:
            self._leave_out("images of telescopes outside the trigger were skipped")
            return
        counts = image_counts(telescope_event)
        if counts is None:
            self._leave_out("telescope events without ADC counts were skipped")
            return
        true_image = event.get("photoelectrons", {}).get(tel_id - 1, {}).get("photoelectrons")
        sums = (event.get("photoelectron_sums") or {}).get("n_pe")
        true_sum = -1 if sums is None else int(sums[self._rows[tel_id]])
        if self._true_images and true_image is None and true_sum > BRIGHT_WITHOUT_TRUE_IMAGE:
            self._leave_out("very bright images without their true image were skipped")
            return

        place = self._place[tel_id]
        tables = self._cameras[int(self.layout.camera_index[place])]
        monitoring = event["camera_monitorings"][tel_id]
        laser = event["laser_calibrations"][tel_id]
        if "pedestal" not in monitoring or "calib" not in laser:
            self._without_calibration(tel_id, monitoring)
            return
        disabled = self.file.telescope_descriptions[tel_id]["disabled_pixels"]["HV_disabled"]
        tables.place = self._current
        row = tables.calibration_index(tel_id, monitoring, laser, np.asarray(disabled, dtype=int))
        trigger = event["trigger_information"]
        at = triggered.index(tel_id)
        alt, az = pointing(event["tracking_positions"][tel_id])
        image = Image(
            event_index=index,
            tel_id=tel_id,
            pointing_alt=alt,
            pointing_az=az,
            trigger_time_ns=float(trigger["trigger_times"][at]),
            trigger_type=int(trigger["teltrg_type_mask"][at]) & 0xFFFF,
            true_image_sum=true_sum,
            true_impact_distance=float(impact[place]),
            true_image=true_image if self.options.true_images else None,
        )
        if tables.append(image, counts, row, telescope_event):
            self.n_images += 1

    def _without_calibration(self, tel_id: int, monitoring: Mapping[str, Any]) -> None:
        what = "laser calibration" if "pedestal" in monitoring else "camera monitoring"
        if self.options.on_error != "keep":
            raise AstriError(
                f"Telescope {tel_id} in {self.path} has data in {self._current} but no "
                f"calibration ({what} is missing): set on_error=keep to leave its images out."
            )
        self._leave_out(f"images of telescope {tel_id} without {what} were left out")

    def _write_event(
        self,
        event_id: int,
        event_type: int,
        trigger: Mapping[str, Any],
        triggered: list[int],
        event: Event,
    ) -> None:
        mask = np.zeros(self.layout.n_telescopes, dtype=bool)
        mask[[self._place[number] for number in triggered if number in self._place]] = True
        header = self.file.header
        if header["tracking_mode"] == 0:
            az, alt = (float(np.rad2deg(float(angle))) for angle in header["direction"])
        else:  # the header has RA and Dec: the array looks where its telescopes look
            alt, az = pointing(next(iter(event["tracking_positions"].values())))
        self._events.add(
            {
                "obs_id": self.obs_id,
                "event_id": event_id,
                "time_s": int(trigger["gps_time"][0]),
                "time_ns": int(trigger["gps_time"][1]),
                "event_type": event_type,
                "array_alt": alt,
                "array_az": az,
                "tel_mask": mask,
            }
        )

    def _write_shower(self, event_id: int, event: Event, event_type: int) -> NDArray[np.float64]:
        """Write the truth and return the distance of each telescope from the axis in m, (tel,)."""
        shower, mc_event = event.get("mc_shower"), event.get("mc_event")
        impact = np.full(self.layout.n_telescopes, np.nan)
        truth = UNKNOWN_TRUTH
        if event_type == SUBARRAY and shower is not None and mc_event is not None:
            truth = shower_truth(shower, mc_event)
            self._primaries.add(int(truth["true_primary_id"]))
            impact = impact_distance(truth, self._position)
        self._showers.add({**truth, "obs_id": self.obs_id, "event_id": event_id})
        return impact
