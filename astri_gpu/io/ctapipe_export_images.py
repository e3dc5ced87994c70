"""The tables of ctapipe's files with one row per image, and where the telescopes point."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.batch import read_ahead
from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_export_dl2 import RESTATED, Columns, image_results, tables_of
from astri_gpu.io.ctapipe_export_events import Content
from astri_gpu.io.ctapipe_export_file import CtapipeFile, EventTable
from astri_gpu.io.ctapipe_model_run import POINTING_COLUMNS
from astri_gpu.kernels.image_types import FLAG_EXCLUDED
from astri_gpu.progress import Progress
from astri_gpu.store import Store

__all__ = ["ImageTables", "Pointing"]

IMAGES_PER_STEP = 32_768  # without pixels; with them a shard of the store
POINTING_TOLERANCE_DEG = 1e-4


class Pointing:
    """Where the telescopes point: ctapipe keeps one direction per telescope and observation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: dict[tuple[int, int], tuple[float, float]] = {}
        self._moved = 0.0

    def add(self, obs_id: int, tel_id: int, alt: NDArray[Any], az: NDArray[Any]) -> None:
        """Look at the directions (deg) of images of one telescope, (image,)."""
        first = self._first.setdefault((obs_id, tel_id), (float(alt[0]), float(az[0])))
        turned = (az - first[1] + 180) % 360 - 180
        moved = np.hypot(alt - first[0], turned * np.cos(np.deg2rad(first[0])))
        self._moved = max(self._moved, float(np.nanmax(moved, initial=0.0)))

    def write(self, file: CtapipeFile) -> list[str]:
        """Write the first direction of each; return a sentence when there were others."""
        tables: dict[int, EventTable] = {}
        file.group(model.POINTING)
        for (obs_id, tel_id), (alt, az) in sorted(self._first.items()):
            if tel_id not in tables:
                path = model.telescope_table(model.POINTING, tel_id)
                tables[tel_id] = file.table(path, POINTING_COLUMNS)
            columns = {
                "obs_id": obs_id,
                "tel_id": tel_id,
                "pointing_alt": np.float64(alt),
                "pointing_az": np.float64(az),
            }
            tables[tel_id].append(1, columns)
        if self._moved > POINTING_TOLERANCE_DEG:
            return [
                f"{self._path}: telescopes moved by up to {self._moved:.3g} deg during an "
                "observation; the file has the direction at its beginning only."
            ]
        return []


class ImageTables:
    """The tables with one row per image of one camera, a table for each of its telescopes."""

    def __init__(
        self, store: Store, file: CtapipeFile, layout: ArrayLayout, content: Content, name: str
    ) -> None:
        self._store, self._content, self._name = store, content, name
        index = [camera.name for camera in layout.cameras].index(name)
        self._tel_ids = [int(tel) for tel in layout.tel_id[layout.camera_index == index]]
        n_pixels = layout.cameras[index].geometry.n_pixels
        n_rows = store.n_rows(f"dl1/image/{name}") // max(1, len(self._tel_ids))
        fields: dict[str, tuple[model.Field, ...]] = {}
        if content.pixels:
            has_mask = (f for f in model.IMAGE_COLUMNS if content.mask or f.ours != "mask")
            fields[model.DL1_IMAGES] = tuple(has_mask)
        if content.parameters:
            fields[model.DL1_PARAMETERS] = model.PARAMETER_COLUMNS
        if f"dl2/image/{name}" in store:
            stored = set(store.columns(f"dl2/image/{name}"))
            for table in tables_of(dl2.OF_TELESCOPES, stored):
                fields[table.group] = table.columns
        if content.simulated:
            fields[model.SIMULATION_IMPACT] = model.TRUE_IMPACT_COLUMNS
            fields[model.SIMULATION_IMAGES] = model.TRUE_IMAGE_COLUMNS
            if not content.pixels:
                fields[model.SIMULATION_IMAGES] = model.TRUE_IMAGE_COLUMNS[:-1]
            if content.parameters:  # ctapipe reads both together
                fields[model.SIMULATION_PARAMETERS] = model.TRUE_PARAMETER_COLUMNS
        self._components = (store.attrs.get("models") or {}).get("disp") == "components"
        pixels = dict.fromkeys(("image", "peak_time", "image_mask", "true_image"), (n_pixels,))
        self._tables = {
            tel_id: [
                file.table(
                    model.telescope_table(group, tel_id),
                    columns,
                    shapes=pixels,
                    expected_rows=n_rows,
                    noise=group in (model.DL1_IMAGES, model.SIMULATION_IMAGES),
                )
                for group, columns in fields.items()
            ]
            for tel_id in self._tel_ids
        }
        wanted = {field.ours for columns in fields.values() for field in columns}
        self._wanted = {name for name in wanted if name is not None} | set(RESTATED)

    def write(self, pointing: Pointing, shown: Progress | None) -> int:
        """Write all images; return how many."""
        n_images = 0
        for n_read, rows in read_ahead(self._blocks(), depth=1):
            n_images += self._append(rows, pointing)
            if shown is not None:
                shown.advance(n_read)
        return n_images

    def _blocks(self) -> Iterator[tuple[int, Columns]]:
        """Yield blocks of images: how many, and their columns without those of calibration."""
        store, path = self._store, f"dl1/image/{self._name}"
        if self._content.pixels:
            blocks = store.blocks(f"{path}/charge")
        else:
            n_rows = store.n_rows(path)
            blocks = [
                (start, min(start + IMAGES_PER_STEP, n_rows))
                for start in range(0, n_rows, IMAGES_PER_STEP)
            ]
        for start, stop in blocks:
            if stop > start:
                yield stop - start, self._read(start, stop)

    def _read(self, start: int, stop: int) -> Columns:
        store = self._store
        keys = ("event_index", "tel_id")
        rows = store.read_table(
            f"dl0/image/{self._name}", [*keys, "pointing_alt", "pointing_az"], start, stop
        )
        event = rows["event_index"]
        first = int(event[0])
        numbers = store.read_table("dl0/event", ["obs_id", "event_id"], first, int(event[-1]) + 1)
        rows |= {name: values[event - first] for name, values in numbers.items()}
        for level in ("dl1", "dl2", "simulation"):
            group = f"{level}/image/{self._name}"
            if group not in store:
                continue
            names = [name for name in store.columns(group) if name in self._wanted - set(keys)]
            more = store.read_table(group, [*keys, *names], start, stop)
            if not all(np.array_equal(rows[key], more.pop(key)) for key in keys):
                raise AstriError(
                    f"{group} of {store.path} does not have the images of dl0/image: the store is "
                    "damaged, make it again."
                )
            rows |= more
        if "image_flags" in store.columns(f"dl1/image/{self._name}"):
            flags = store.read(f"dl1/image/{self._name}/image_flags", start, stop)
            rows["is_valid"] = (flags & FLAG_EXCLUDED) == 0
        return rows | image_results(rows, components=self._components)

    def _append(self, rows: Columns, pointing: Pointing) -> int:
        keep = rows["event_id"] >= 0
        for tel_id, tables in self._tables.items():
            chosen = np.nonzero(keep & (rows["tel_id"] == tel_id))[0]
            if not len(chosen):
                continue
            of_tel = {name: values[chosen] for name, values in rows.items()}
            for table in tables:
                table.append(len(chosen), of_tel)
            for obs_id in np.unique(of_tel["obs_id"]):
                of_run = of_tel["obs_id"] == obs_id
                alt, az = of_tel["pointing_alt"][of_run], of_tel["pointing_az"][of_run]
                pointing.add(int(obs_id), tel_id, alt, az)
        return int(np.count_nonzero(keep))
