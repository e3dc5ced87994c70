"""The DL0 store of a simulation, written in a thread of its own while the next events are made.

The tables are those that `ingest` writes, so that every later stage takes both alike, and besides
them the true constants of the cameras and variance images.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import WriteBehind
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io.simtel_truth import TRUTH_COLUMNS, UNKNOWN_TRUTH
from astri_gpu.kernels.simulation_types import Images
from astri_gpu.simulation.camera_model import TrueConstants
from astri_gpu.simulation.thrown import ThrownHistogram
from astri_gpu.store import StoreWriter, TableWriter, create
from astri_gpu.store_layout import write_layout

__all__ = ["SIMULATION_MODEL", "EventBlock", "ProductionWriter"]

SIMULATION_MODEL = (
    "Fast model of astri_gpu: showers from parametrised cascades and a simplified telescope; "
    "it is no substitute for CORSIKA and sim_telarray."
)
TOPOLOGICAL_TRIGGER = 1
"""`trigger_type`: sim_telarray's bit for the logic that counts pixels above a threshold."""
HIGH_GAIN = 0

NS = 1_000_000_000
"""Nanoseconds in a second."""


class EventBlock(NamedTuple):
    """Events in the order of their time, with their images in the order of events, then telescopes.

    `truth` has columns of simulation/event (TRUTH_COLUMNS), those that are left out are unknown.
    """

    event_id: NDArray[np.int64]  # (event,), negative for calibration events
    unix_ns: NDArray[np.int64]  # (event,), ns since 1970
    event_type: NDArray[np.uint8]
    truth: Mapping[str, NDArray[Any]]  # (event,) each
    image_event: NDArray[np.int64]  # (image,), row in this block
    image_tel: NDArray[np.int64]  # (image,), row in the layout
    impact_distance: NDArray[np.float64]  # (image,), m; NaN = no shower
    images: Images  # (image, ...); `triggered` is not looked at


class ProductionWriter:
    """A DL0 store under construction, a context manager.

    The store appears when the context ends without an error after `finish`.

    Parameters
    ----------
    output
        The store to make.
    layout
        The array; all telescopes have its first camera.
    alt, az
        Pointing of the array and of all telescopes, deg.
    obs_id
        Observation number.
    attrs
        Root attributes (config, source and so on).
    true_images
        Whether the true photo-electrons of every pixel are stored.
    images_per_chunk
        Images in a chunk of the store.
    overwrite
        Whether an existing store is replaced.

    Attributes
    ----------
    n_events, n_images
        How much was appended.

    Raises
    ------
    UsageError
        On entering, when the output exists and may not be replaced.
    AstriError
        On entering, when the output cannot be written.
    """

    def __init__(
        self,
        output: str | Path,
        layout: ArrayLayout,
        *,
        alt: float,
        az: float,
        obs_id: int,
        attrs: Mapping[str, Any],
        true_images: bool = False,
        images_per_chunk: int = 1024,
        overwrite: bool = False,
    ) -> None:
        attrs = {
            "data_level": "DL0",
            "obs_id": obs_id,
            "truncated": False,
            "simulation_model": SIMULATION_MODEL,
            **attrs,
        }
        self.layout, self.obs_id = layout, obs_id
        self.n_events = self.n_images = 0
        self._store: StoreWriter = create(output, overwrite=overwrite, attrs=attrs)
        self._alt, self._az, self._true_images = alt, az, true_images
        self._rows_per_chunk = images_per_chunk
        self._camera = layout.cameras[0].name
        self._behind = WriteBehind(self._write)
        self._finished = False
        self._events: TableWriter
        self._showers: TableWriter
        self._images: TableWriter
        self._truth: TableWriter
        self._variances: TableWriter | None = None
        self._written = 0  # events that the thread has written

    def __enter__(self) -> "ProductionWriter":
        self._store.__enter__()
        try:
            self._make_tables()
            self._behind.__enter__()
        except BaseException as error:
            self._store.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._finished:
                self._behind.__exit__(kind, error, trace)
                if error is None:
                    raise RuntimeError("finish() was not called: the store has no header")
        except BaseException as late:
            self._store.__exit__(type(late), late, late.__traceback__)
            raise
        self._store.__exit__(kind, error, trace)

    def constants(self, true: TrueConstants) -> None:
        """Write the constants of all telescopes; their rows are those of the layout."""
        sizes = self._sizes
        tel_id = self.layout.tel_id
        self._store.table(
            f"monitoring/camera/{self._camera}",
            ["tel_id", "pedestal", "pedestal_std", "dc_to_pe", "time_shift", "pixel_valid"],
            sizes=sizes,
        ).append(
            {
                "tel_id": tel_id,
                "pedestal": true.pedestal,
                "pedestal_std": true.pedestal_std,
                "dc_to_pe": true.dc_to_pe,
                "time_shift": np.zeros_like(true.pedestal),
                "pixel_valid": true.pixel_valid,
            }
        )
        self._store.table(
            f"simulation/camera/{self._camera}",
            ["tel_id", "true_gain", "true_baseline", "true_efficiency", "true_night_sky"],
            sizes=sizes,
        ).append(
            {
                "tel_id": tel_id,
                "true_gain": true.gain,
                "true_baseline": true.baseline,
                "true_efficiency": true.relative_efficiency,
                "true_night_sky": true.noise_rate_mhz,
            }
        )

    def variance(self, time_s: int, variance: NDArray[np.float64], n_samples: int) -> None:
        """Write a variance image of every telescope, (tel, pixel) in adu2, of `n_samples` each."""
        path = f"monitoring/variance/{self._camera}"
        if self._variances is None:
            names = ["tel_id", "time_s", "time_ns", "variance"]
            self._variances = self._store.table(path, names, sizes=self._sizes)
            self._store.set_attrs(path, {"n_samples": n_samples, "gain": HIGH_GAIN})
        n_tel = self.layout.n_telescopes
        self._variances.append(
            {
                "tel_id": self.layout.tel_id,
                "time_s": np.full(n_tel, time_s),
                "time_ns": np.zeros(n_tel, dtype=np.int32),
                "variance": variance,
            }
        )

    def append(self, block: EventBlock) -> None:
        """Queue events and their images for writing."""
        self.n_events += len(block.event_id)
        self.n_images += len(block.image_event)
        self._behind(block)

    def finish(
        self,
        *,
        header: Mapping[str, Any],
        thrown: ThrownHistogram | None,
        attrs: Mapping[str, Any],
    ) -> None:
        """Write instrument, run header and root attributes when all events are written.

        Parameters
        ----------
        header
            Attributes of the group `simulation`, named as for sim_telarray files.
        thrown
            All showers thrown, None where nobody knows.
        attrs
            More root attributes (kind, provenance).
        """
        self._finished = True
        self._behind.__exit__(None, None, None)
        write_layout(self._store, self.layout)
        self._store.set_attrs("simulation", {**header, "partial": False})
        if thrown is not None:
            group = "simulation/thrown"
            for name in ("histogram", "core_distance_edges", "energy_edges"):
                self._store.write(group, name, getattr(thrown, name))
            self._store.set_attrs(group, {"n_entries": thrown.n_entries, "note": thrown.note})
        self._store.attrs.update(attrs, n_events=self.n_events, n_images=self.n_images)

    @property
    def _sizes(self) -> dict[str, int]:
        camera = self.layout.cameras[0]
        return {
            "tel": self.layout.n_telescopes,
            "gain": camera.readout.n_gains,
            "pixel": camera.geometry.n_pixels,
        }

    def _make_tables(self) -> None:
        table, sizes = self._store.table, self._sizes
        keys, image_keys = ["obs_id", "event_id"], ["event_index", "tel_id"]
        self._events = table(
            "dl0/event",
            [*keys, "time_s", "time_ns", "event_type", "array_alt", "array_az", "tel_mask"],
            sizes=sizes,
        )
        self._showers = table("simulation/event", [*keys, *TRUTH_COLUMNS], sizes=sizes)
        self._images = table(
            f"dl0/image/{self._camera}",
            [
                *image_keys,
                "calibration_index",
                "pointing_alt",
                "pointing_az",
                "trigger_time_ns",
                "n_trigger_pixels",
                "trigger_type",
                "trigger_pixel",
                "adc",
            ],
            sizes=sizes,
            rows_per_chunk=self._rows_per_chunk,
        )
        truth = [*image_keys, "true_image_sum", "true_impact_distance"]
        self._truth = table(
            f"simulation/image/{self._camera}",
            [*truth, "true_image"] if self._true_images else truth,
            sizes=sizes,
            rows_per_chunk=self._rows_per_chunk,
        )

    def _write(self, block: EventBlock) -> None:
        """Write a block; runs in the writer's thread."""
        n_events, n_images = len(block.event_id), len(block.image_event)
        tel_mask = np.zeros((n_events, self.layout.n_telescopes), dtype=bool)
        tel_mask[block.image_event, block.image_tel] = True
        keys = {"obs_id": np.full(n_events, self.obs_id), "event_id": block.event_id}
        self._events.append(
            {
                **keys,
                "time_s": block.unix_ns // NS,
                "time_ns": (block.unix_ns % NS).astype(np.int32),
                "event_type": block.event_type,
                "array_alt": np.full(n_events, self._alt),
                "array_az": np.full(n_events, self._az),
                "tel_mask": tel_mask,
            }
        )
        unknown = {name: np.full(n_events, value) for name, value in UNKNOWN_TRUTH.items()}
        self._showers.append({**keys, **unknown, **block.truth})
        images = block.images
        image_keys = {
            "event_index": self._written + block.image_event,
            "tel_id": self.layout.tel_id[block.image_tel],
        }
        self._images.append(
            {
                **image_keys,
                "calibration_index": block.image_tel,
                "pointing_alt": np.full(n_images, self._alt),
                "pointing_az": np.full(n_images, self._az),
                "trigger_time_ns": images.trigger_time,
                "n_trigger_pixels": images.trigger_pixel.sum(axis=1),
                "trigger_type": np.full(n_images, TOPOLOGICAL_TRIGGER),
                "trigger_pixel": images.trigger_pixel,
                "adc": images.adc,
            }
        )
        rows = {
            **image_keys,
            "true_image_sum": images.true_sum,
            "true_impact_distance": block.impact_distance,
        }
        if self._true_images:
            rows["true_image"] = images.true_image
        self._truth.append(rows)
        self._written += n_events
