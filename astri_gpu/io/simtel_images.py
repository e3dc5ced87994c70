"""Telescope images of sim_telarray events and the calibration constants that belong to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import CameraDescription
from astri_gpu.io.row_block import RowBlock
from astri_gpu.store import StoreWriter, TableWriter

__all__ = ["CameraTables", "Counts", "Image", "image_counts"]

TRIGGER_PIXELS = 0  # code of sim_telarray's list of triggered pixels
MAX_UINT16 = 65_535


@dataclass(frozen=True)
class Counts:
    """ADC counts of one image: (gain, pixel, sample), or (gain, pixel) when `name` is "adc"."""

    name: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Image:
    """What is known about one image besides its counts; angles in deg, times in ns, m."""

    event_index: int
    tel_id: int
    pointing_alt: float
    pointing_az: float
    trigger_time_ns: float
    trigger_type: int
    true_image_sum: int
    true_impact_distance: float
    true_image: NDArray[Any] | None


def image_counts(telescope_event: Mapping[str, Any]) -> Counts | None:
    """Return the counts of a telescope event: samples where it has them, else sums, else None."""
    samples = telescope_event.get("adc_samples")
    if samples is None:
        sums = telescope_event.get("adc_sums")
        return None if sums is None else Counts("adc", sums)
    if samples.ndim == 2:  # eventio drops the axis of a single sample
        return Counts("adc", samples)
    if samples.shape[2] == 1:
        return Counts("adc", samples[:, :, 0])
    return Counts("waveform", samples)


class CameraTables:
    """The tables of one camera: images, their truth, and calibration constants.

    `path` is the input file and `place` the event at hand, for messages. The tables are made with
    the first image, because the file header does not say whether samples or sums follow.
    """

    def __init__(
        self,
        writer: StoreWriter,
        camera: CameraDescription,
        path: Any,
        *,
        keep: bool,
        true_images: bool,
        images_per_chunk: int,
    ) -> None:
        self.camera = camera
        self.n_images = 0
        self.place = ""
        self.n_samples: int | None = None
        self.notes: list[str] = []
        self._writer, self._path, self._keep = writer, path, keep
        self._true_images = true_images
        self._rows_per_chunk = images_per_chunk
        self._counts_name = ""
        self._max_counts = MAX_UINT16
        self._images: RowBlock | None = None
        self._truth: RowBlock | None = None
        self._constants: TableWriter | None = None
        self._no_true_image = np.full(camera.geometry.n_pixels, -1, dtype=np.int32)
        # Last constants of each telescope: the objects they came from, the values, their row.
        self._known: dict[int, tuple[tuple[Any, ...], tuple[NDArray[Any], ...], int]] = {}

    def calibration_index(
        self,
        tel_id: int,
        monitoring: Mapping[str, Any],
        laser: Mapping[str, Any],
        disabled: NDArray[Any],
    ) -> int:
        """Return the row of the telescope's constants, written now if they are new.

        The pedestal is that of one sample, the sum over `n_ped_slices` samples divided by their
        number; its standard deviation scales with the square root of it.

        Raises
        ------
        AstriError
            For constants that are not finite (unless kept as invalid pixels), or a telescope
            without any usable pixel.
        """
        origin = (monitoring["pedestal"], laser["calib"], laser.get("tm_calib"))
        known = self._known.get(tel_id)
        if known and all(a is b for a, b in zip(known[0], origin, strict=True)):
            return known[2]

        shape = (self.camera.readout.n_gains, self.camera.geometry.n_pixels)
        n_slices = np.float32(monitoring["n_ped_slices"])
        with np.errstate(invalid="ignore", divide="ignore"):
            values = (
                np.asarray(monitoring["pedestal"], np.float32) / n_slices,
                np.asarray(monitoring["noise"], np.float32) / np.sqrt(n_slices),
                np.asarray(laser["calib"], np.float32),
                np.zeros(shape, np.float32)
                if laser.get("tm_calib") is None
                else np.asarray(laser["tm_calib"], np.float32),
            )
        for array in values:
            if array.shape != shape:
                raise AstriError(
                    f"The calibration constants of telescope {tel_id} in {self._path} are "
                    f"{array.shape}, but its camera has {shape} (gains, pixels)."
                )
        valid = np.ones(shape, dtype=bool)
        valid[:, disabled] = False
        if not valid.any():
            self._report(
                f"All {shape[1]} pixels of telescope {tel_id} in {self._path} are switched off",
                "remove it with allowed_telescopes",
            )
        self._check_finite(tel_id, values, valid)
        if known and all(
            np.array_equal(a, b, equal_nan=True) for a, b in zip(known[1], values, strict=True)
        ):
            self._known[tel_id] = (origin, known[1], known[2])
            return known[2]
        row = self._write_constants(tel_id, values, valid)
        self._known[tel_id] = (origin, values, row)
        return row

    def append(
        self, image: Image, counts: Counts, calibration: int, telescope_event: Mapping[str, Any]
    ) -> bool:
        """Write one image; return False where it does not fit and is left out (`keep`).

        Raises
        ------
        AstriError
            When the counts have another shape than those of the images before.
        """
        n_samples = counts.values.shape[2] if counts.name == "waveform" else 1
        if self._images is None:
            self._make_tables(counts, n_samples, image.true_image is not None)
        fits = (
            counts.values.shape[:2] == (self.camera.readout.n_gains, self.camera.geometry.n_pixels)
            and n_samples == self.n_samples
            and counts.name == self._counts_name
        )
        if not fits or (counts.name == "adc" and int(counts.values.max()) > self._max_counts):
            self._report(
                f"Images of telescope {image.tel_id} in {self._path}, {self.place}, differ: "
                f"{counts.values.shape} {counts.name} up to {int(counts.values.max())} after "
                f"{self._counts_name} of {self.n_samples} samples",
                "ingest these telescopes or events apart",
            )
            return False
        trigger_pixel = np.zeros(self.camera.geometry.n_pixels, dtype=bool)
        n_trigger_pixels = -1
        fired = telescope_event.get("pixel_lists", {}).get(TRIGGER_PIXELS)
        if fired:
            n_trigger_pixels = int(fired["pixels"])
            self._mark(trigger_pixel, fired["pixel_list"], image.tel_id)
        assert self._images is not None
        self._images.add(
            {
                "event_index": image.event_index,
                "tel_id": image.tel_id,
                "calibration_index": calibration,
                "pointing_alt": image.pointing_alt,
                "pointing_az": image.pointing_az,
                "trigger_time_ns": image.trigger_time_ns,
                "n_trigger_pixels": n_trigger_pixels,
                "trigger_type": image.trigger_type,
                "trigger_pixel": trigger_pixel,
                counts.name: counts.values,
            }
        )
        self._append_truth(image)
        self.n_images += 1
        return True

    def flush(self) -> None:
        """Give the last images to the store; to be called once, after the last event."""
        for rows in (self._images, self._truth):
            if rows is not None:
                rows.flush()

    def _mark(self, trigger_pixel: NDArray[np.bool_], fired: NDArray[Any], tel_id: int) -> None:
        if len(fired) and not 0 <= int(fired.min()) <= int(fired.max()) < len(trigger_pixel):
            self._report(
                f"The trigger of telescope {tel_id} in {self._path}, {self.place}, names pixels "
                f"that its camera of {len(trigger_pixel)} pixels does not have",
                "copy the file again",
            )
            fired = fired[(fired >= 0) & (fired < len(trigger_pixel))]
        trigger_pixel[fired] = True

    def _append_truth(self, image: Image) -> None:
        if self._truth is None:
            return
        row: dict[str, Any] = {
            "event_index": image.event_index,
            "tel_id": image.tel_id,
            "true_image_sum": image.true_image_sum,
            "true_impact_distance": image.true_impact_distance,
        }
        if self._true_images:
            row["true_image"] = (
                self._no_true_image if image.true_image is None else image.true_image
            )
        self._truth.add(row)

    def _make_tables(self, counts: Counts, n_samples: int, has_true_image: bool) -> None:
        self.n_samples, self._counts_name = n_samples, counts.name
        name, geometry = self.camera.name, self.camera.geometry
        # A sum over many samples passes 16 bits; a single sample never does.
        summed = counts.name == "adc" and self.camera.readout.n_samples > 1
        if summed:
            self._max_counts = np.iinfo(np.uint32).max
        sizes = {
            "gain": self.camera.readout.n_gains,
            "pixel": geometry.n_pixels,
            "sample": n_samples,
        }
        self._images = RowBlock(
            self._writer,
            f"dl0/image/{name}",
            [
                "event_index",
                "tel_id",
                "calibration_index",
                "pointing_alt",
                "pointing_az",
                "trigger_time_ns",
                "n_trigger_pixels",
                "trigger_type",
                "trigger_pixel",
                counts.name,
            ],
            sizes=sizes,
            rows_per_chunk=self._rows_per_chunk,
            dtypes={"adc": "u4" if summed else "u2"},
        )
        columns = ["event_index", "tel_id", "true_image_sum", "true_impact_distance"]
        self._true_images = self._true_images or has_true_image
        if self._true_images:
            columns.append("true_image")
        self._truth = RowBlock(
            self._writer,
            f"simulation/image/{name}",
            columns,
            sizes=sizes,
            rows_per_chunk=self._rows_per_chunk,
        )

    def _write_constants(
        self, tel_id: int, values: tuple[NDArray[Any], ...], valid: NDArray[Any]
    ) -> int:
        names = ("pedestal", "pedestal_std", "dc_to_pe", "time_shift")
        if self._constants is None:
            self._constants = self._writer.table(
                f"monitoring/camera/{self.camera.name}",
                ["tel_id", *names, "pixel_valid"],
                sizes={"gain": valid.shape[0], "pixel": valid.shape[1]},
            )
        row = self._constants.n_rows
        columns = {name: array[np.newaxis] for name, array in zip(names, values, strict=True)}
        self._constants.append({"tel_id": [tel_id], "pixel_valid": valid[np.newaxis], **columns})
        return row

    def _check_finite(
        self, tel_id: int, values: tuple[NDArray[Any], ...], valid: NDArray[Any]
    ) -> None:
        bad = ~np.logical_and.reduce([np.isfinite(array) for array in values]) & valid
        n_bad = int(bad.sum())
        if not n_bad:
            return
        self._report(
            f"Telescope {tel_id} in {self._path}, {self.place}, has {n_bad} of {bad.size} pixel "
            "constants (pedestal or gain) that are not finite",
            "set on_error=keep to mark these pixels invalid",
        )
        valid &= ~bad

    def _report(self, what: str, remedy: str) -> None:
        """Note a problem where images are kept, else stop with it."""
        if not self._keep:
            raise AstriError(f"{what}: {remedy}.")
        self.notes.append(f"{what}.")
