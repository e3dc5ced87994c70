"""Processed stores to ctapipe's HDF5 files (data model v7.1.0), block by block.

First the events, then camera by camera the images; memory does not grow with either. The rules that
ctapipe's readers depend on: telescope-wise tables follow the order of the trigger table, and each
has one row for every telescope that is said to have triggered.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io.ctapipe_export_events import Content, EventTables
from astri_gpu.io.ctapipe_export_file import ctapipe_file
from astri_gpu.io.ctapipe_export_header import (
    Observation,
    find_observations,
    reference_attributes,
    write_observations,
    write_simulation_run,
)
from astri_gpu.io.ctapipe_export_images import ImageTables, Pointing
from astri_gpu.io.ctapipe_export_instrument import write_instrument
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.store import Store, open_store
from astri_gpu.store_layout import read_layout

__all__ = ["ExportSummary", "export_store"]


@dataclass(frozen=True)
class ExportSummary:
    """What one file holds; `n_left_out` events have no place in it (calibration events)."""

    output: Path
    n_events: int
    n_images: int
    n_left_out: int
    warnings: tuple[str, ...]


def export_store(
    path: str | Path,
    output: str | Path,
    *,
    images: bool | None = None,
    overwrite: bool = False,
    config: Mapping[str, Any] | None = None,
    shown: Progress | None = None,
) -> ExportSummary:
    """Write one processed store as an HDF5 file of ctapipe, which appears whole or not at all.

    Parameters
    ----------
    path
        DL2a or DL2b store, or DL1a store with charges.
    output
        The file to make.
    images
        Whether charges, peak times and masks of every pixel are written; None = if the store has
        them.
    overwrite
        Replace an existing file.
    config
        Recorded in the provenance.
    shown
        Is told about every image.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, or images are asked for that the store does
        not have.
    AstriError
        When the store is not processed, has only calibration events, its tables do not fit
        together, or the disk takes no more.
    """
    started = now()
    store = open_store(path)
    content = _content(store, images)
    layout = read_layout(store)
    observations, n_left_out = find_observations(store)
    notes = []
    with ctapipe_file(output, overwrite=overwrite) as file:
        write_instrument(file, layout)
        write_observations(file, observations, content.simulated)
        if content.simulated:
            notes += write_simulation_run(file, store, observations)
        n_events = sum(each.n_events for each in observations)
        notes += EventTables(store, file, layout, content, n_events).write()
        pointing = Pointing(store.path)
        n_images = 0
        for name in store.cameras("dl1"):
            n_images += ImageTables(store, file, layout, content, name).write(pointing, shown)
        notes += pointing.write(file)
        file.root_attributes(
            reference_attributes(store, layout, observations, content.levels, started)
        )
        record = provenance("export", config or {}, [path], started)
        record["previous"] = store.attrs.get("provenance")
        file.provenance(record)
    notes += _remarks(store, layout, observations, n_left_out)
    return ExportSummary(Path(output), n_events, n_images, n_left_out, tuple(notes))


def _content(store: Store, images: bool | None) -> Content:
    """Return what the store has, checked."""
    cameras = store.cameras("dl1")
    if not cameras or cameras != store.cameras("dl0"):
        raise AstriError(
            f"{store.path} is a {store.attrs.get('data_level')} store without image parameters or "
            "charges: run `astri-gpu process` on it and export the output."
        )

    def all_have(level: str, name: str) -> bool:
        return all(f"{level}/{camera}/{name}" in store for camera in cameras)

    pixels = all_have("dl1/image", "charge") and all_have("dl1/image", "peak_time")
    if images and not pixels:
        raise UsageError(
            f"{store.path} holds no charges of pixels: process it with images=true, or leave out "
            "images=true here."
        )
    simulated = "simulation/event" in store
    return Content(
        pixels=pixels and images is not False,
        mask=all_have("dl1/image", "mask"),
        parameters=all_have("dl1/image", "hillas_intensity"),
        geometry="dl2/event" in store,
        simulated=simulated,
        true_images=simulated and all_have("simulation/image", "true_image"),
    )


def _remarks(
    store: Store, layout: ArrayLayout, observations: list[Observation], n_left_out: int
) -> list[str]:
    """Return sentences about what the file does not have, or readers have to know."""
    notes = []
    if n_left_out:
        notes.append(
            f"{store.path}: {n_left_out} calibration events (negative event_id) were left out; "
            "ctapipe's event numbers cannot be negative."
        )
    for camera in layout.cameras:
        if camera.optics.effective_focal_length_m is None:
            notes.append(
                f"{store.path}: the effective focal length of {camera.name} is not known; ctapipe "
                "reads the file with focal_length_choice=EQUIVALENT."
            )
    return notes
