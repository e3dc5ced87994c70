"""From the DL0 files of an observation run, its stereo events and constants to a DL0 store.

The telescopes' files are mapped, and their rows gathered in the order of the events of the array:
within each file they are nearly in order, so that everything is read once and in one direction.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.batch import WriteBehind
from astri_gpu.dl0.files import Dl0File
from astri_gpu.errors import AstriError
from astri_gpu.io.dl0_fits_images import PacketNumbers, Plan, blocks, calibration_plan, shower_plan
from astri_gpu.io.dl0_fits_monitoring import (
    good_time,
    write_constants,
    write_housekeeping,
    write_variances,
)
from astri_gpu.io.dl0_fits_run import Dl0Options, RunFiles
from astri_gpu.io.simtel import Counter, IngestOptions, IngestSummary
from astri_gpu.provenance import now, provenance
from astri_gpu.store import StoreWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["Dl0Options", "ingest_dl0"]

SOURCE, KIND, LEVEL = "dl0_fits", "observation", "DL0"
LAST_S = 1e-6
NS_S = 1e-9


def ingest_dl0(
    path: str | Path,
    output: str | Path,
    options: IngestOptions | None = None,
    progress: Counter | None = None,
    config: Mapping[str, Any] | None = None,
    run_options: Dl0Options | None = None,
) -> IngestSummary:
    """Write the DL0 store of an observation run and return what is in it.

    Event numbers are those of the stereo events, which keep events of single telescopes too;
    interleaved events follow them with negative numbers. With `max_events` these come last, and the
    run ends with the last event of the array that was taken.

    Parameters
    ----------
    path
        Folder of the DL0 files of one run.
    output
        The store to make.
    options
        What to read.
    progress
        Is told about every block's images.
    config
        Recorded in the store instead of `options`.
    run_options
        Stereo events, constants and what the files do not say; its `on_error` and
        `allowed_telescopes` come from `options`.

    Raises
    ------
    UsageError
        When the output exists (and `overwrite` is not set), `path` is no folder, there are no
        stereo events or constants, or an allowed telescope is unknown.
    AstriError
        When files are missing, damaged, of different runs, telescopes or cameras, or the stereo
        events were made from others.
    """
    path, output, options = Path(path), Path(output), options or IngestOptions()
    started, clock = now(), time.perf_counter()
    recorded = asdict(options) if config is None else config
    given = asdict(run_options or Dl0Options()) | {
        "on_error": options.on_error,
        "allowed_telescopes": options.allowed_telescopes,
    }
    attrs = {"data_level": LEVEL, "source": SOURCE, "kind": KIND, "config": recorded}
    with RunFiles(path, Dl0Options(**given)) as run:
        with create(output, overwrite=options.overwrite, attrs=attrs) as writer:
            work = _Ingest(run, writer, options, progress)
            work.write()
            writer.attrs["provenance"] = provenance("ingest", recorded, run.inputs, started)
        notes = run.notes
    return IngestSummary(
        path=path,
        output=output,
        n_events=work.n_events,
        n_images=work.n_images,
        seconds=time.perf_counter() - clock,
        truncated=False,
        warnings=notes,
        facts=work.facts,
    )


class _Ingest:
    """The state of one ingest."""

    def __init__(
        self,
        run: RunFiles,
        writer: StoreWriter,
        options: IngestOptions,
        progress: Counter | None,
    ) -> None:
        self.run, self.writer, self.options, self.progress = run, writer, options, progress
        self.obs_id = run.header.obs_id if options.obs_id is None else options.obs_id
        self.n_events = self.n_images = 0
        self.facts: dict[str, str] = {}
        sizes = {
            "tel": run.layout.n_telescopes,
            "gain": run.camera.readout.n_gains,
            "pixel": run.camera.geometry.n_pixels,
        }
        self._events = writer.table(
            "dl0/event",
            [
                "obs_id",
                "event_id",
                "time_s",
                "time_ns",
                "event_type",
                "array_alt",
                "array_az",
                "tel_mask",
            ],
            sizes=sizes,
        )
        columns = [
            "event_index",
            "tel_id",
            "calibration_index",
            "pointing_alt",
            "pointing_az",
            "trigger_time_ns",
            "n_trigger_pixels",
            "trigger_type",
            "adc",
        ]
        self._images = writer.table(
            f"dl0/image/{run.camera.name}",
            [*columns, "trigger_pixel"] if run.has_trigger_pixels else columns,
            sizes=sizes,
            rows_per_chunk=options.images_per_chunk,
        )

    def write(self) -> None:
        """Write everything but the provenance."""
        run, limit = self.run, self.options.max_events
        write_layout(self.writer, run.layout)
        write_constants(self.writer, run)
        run.notes += write_variances(self.writer, run)
        write_housekeeping(self.writer, run)
        plan = shower_plan(run, limit)
        if not plan.n_events:
            raise AstriError(
                f"{run.seb0.path} has no event of the telescopes "
                f"{', '.join(map(str, run.tel_ids))}: there is nothing to write."
            )
        cut = limit is not None and plan.n_events == limit
        packets = {tel_id: PacketNumbers() for tel_id in run.tel_ids}
        self._append(plan, run.events, packets)
        left = None if limit is None else limit - plan.n_events
        if self.options.calibration_events and run.calibration and left != 0:
            extra, n_lost = calibration_plan(run, left)
            if n_lost:
                run.notes.append(f"{n_lost} interleaved events have no time and were left out.")
            self._append(extra, run.calibration)
        last = float(plan.time_s[-1] + NS_S * plan.time_ns[-1]) + LAST_S
        stop_s = min(run.header.stop_s, last) if cut else None
        good, dead_time, notes = good_time(self.writer, run, plan, packets, stop_s)
        run.notes += notes
        self.facts = {
            "good time": f"{good.seconds:,.1f} of {good.run_s:,.1f} s",
            "dead time": f"{dead_time:.3%} of the array",
            "telescopes": f"{len(run.tel_ids)} of {len(run.header.tel_ids)}",
        }
        self._judge(plan, good.intervals)
        self.writer.attrs.update(self._attrs(run.header.stop_s if stop_s is None else stop_s))

    def _append(
        self,
        plan: Plan,
        files: Mapping[int, Dl0File],
        packets: Mapping[int, PacketNumbers] | None = None,
    ) -> None:
        """Write the events of a plan, in a thread of its own while the next ones are read."""

        def write(events: dict[str, Any], images: dict[str, Any]) -> None:
            self._events.append(events)
            self._images.append(images)

        with WriteBehind(write) as behind:
            for events, images in blocks(
                self.run, plan, files, self.n_events, self.obs_id, packets
            ):
                behind(events, images)
                if self.progress is not None:
                    self.progress.advance(len(images["tel_id"]))
        self.n_events += plan.n_events
        self.n_images += plan.n_images

    def _judge(self, plan: Plan, intervals: Any) -> None:
        """Tell of events without pointing, and outside good time."""
        from astri_gpu.dl3.gti import inside

        lost = int(np.count_nonzero(~np.isfinite(plan.array_alt)))
        n_images = int(np.count_nonzero(~np.isfinite(plan.alt)))
        if n_images:
            self.run.notes.append(
                f"{n_images:,} images have no pointing, because there is no housekeeping around "
                f"their time, and {lost:,} of {plan.n_events:,} events have none at all: they "
                "cannot be reconstructed."
            )
        seconds = plan.time_s + NS_S * plan.time_ns
        outside = plan.n_events
        if len(intervals):
            outside = int(np.count_nonzero(~inside(seconds, intervals)))
        if outside:
            self.run.notes.append(
                f"{outside:,} of {plan.n_events:,} events are outside the good time."
            )

    def _attrs(self, stop_s: float) -> dict[str, Any]:
        """Return the root attributes that the run has."""
        header = self.run.header
        model = header.simulation_model
        return {
            "obs_id": self.obs_id,
            "truncated": False,
            "n_events": self.n_events,
            "n_images": self.n_images,
            "target": header.target,
            "ra_deg": header.ra_deg,
            "dec_deg": header.dec_deg,
            "wobble_offset_deg": header.wobble_offset_deg,
            "wobble_angle_deg": header.wobble_angle_deg,
            "ra_pnt_deg": header.ra_pnt_deg,
            "dec_pnt_deg": header.dec_pnt_deg,
            "start_s": header.start_s,
            "stop_s": stop_s,
            "run_telescopes": list(header.tel_ids),
            **({} if model is None else {"simulation_model": model}),
        }
