"""SIM_EVTS, the table of simulated events, and ASTRIGPU, what the format has no place for."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io import astri_fits_model as model
from astri_gpu.io.astri_fits_file import FitsWriter
from astri_gpu.io.astri_fits_instrument import describe_array
from astri_gpu.io.astri_fits_model import Field
from astri_gpu.io.astri_fits_reader import FitsFile
from astri_gpu.io.simtel_truth import SUBARRAY, UNKNOWN_TRUTH
from astri_gpu.store import Store
from astri_gpu.store_disk import json_ready

__all__ = ["SHOWER", "Truth", "narrow", "pack_keys", "write_extra", "write_truth"]

SHOWER = SUBARRAY
EVENTS_PER_STEP = 65_536
PRIMARIES = {"gamma": 0, "electron": 1, "proton": 101, "helium": 402}
"""Particles by the words for them in names of A-SciSoft files."""

_SHOWER_ID = (Field("SHOWERID", "i8", "", "Number of the shower, shared by all its uses"),)
_STORE_ATTRS = ("kind", "obs_id", "simulation_model", "source", "truncated", "stereo_algorithm")


def narrow(values: NDArray[Any], name: str, what: str, dtype: str = "i4") -> NDArray[Any]:
    """Return whole numbers as a narrower type.

    Raises
    ------
    AstriError
        When one of them does not fit.
    """
    limits = np.iinfo(dtype)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        raise AstriError(
            f"{what} goes from {values.min()} to {values.max()}, which the column {name} "
            f"({limits.bits} bits) does not hold."
        )
    return values.astype(dtype)


def pack_keys(run: NDArray[Any], number: NDArray[Any]) -> NDArray[np.int64]:
    """Return one whole number for a run and an event number of 32 bits each."""
    return (run.astype(np.int64) << 32) + number.astype(np.int64)


def write_truth(writer: FitsWriter, store: Store) -> None:
    """Write SIM_EVTS, one row for every simulated shower event of the store, and SIM_MORE.

    Raises
    ------
    AstriError
        When numbers of events or runs are larger than 32 bits.
    """
    table = writer.table(model.SIMULATED, model.SIM_FIELDS)
    names = list(model.TRUTH.values())
    for start, stop in _steps(store):
        rows = store.read_table("simulation/event", names, start, stop)
        keep = store.read("dl0/event/event_type", start, stop) == SHOWER
        columns = {}
        for entry in model.SIM_FIELDS:
            values = rows[str(entry.column)][keep]
            if entry.name == "MCZD":
                values = 90.0 - values
            if entry.dtype != "f4":
                what = f"{entry.column} of {store.path}"
                values = narrow(values, entry.name, what, entry.dtype)
            columns[entry.name] = values
        table.append(columns)
    if "simulation/event/shower_id" in store:
        table = writer.table(model.EXTRA_TRUTH, _SHOWER_ID)
        for start, stop in _steps(store):
            keep = store.read("dl0/event/event_type", start, stop) == SHOWER
            table.append({"SHOWERID": store.read("simulation/event/shower_id", start, stop)[keep]})


def _steps(store: Store) -> list[tuple[int, int]]:
    n_events = store.n_rows("dl0/event")
    return [
        (start, min(start + EVENTS_PER_STEP, n_events))
        for start in range(0, n_events, EVENTS_PER_STEP)
    ]


def write_extra(
    writer: FitsWriter,
    store: Store,
    layout: ArrayLayout,
    level: str,
    provenance: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Write ASTRIGPU: run headers, thrown showers, instrument and provenance, in one row."""
    meta: dict[str, Any] = {
        "level": level,
        "store": {name: store.attrs[name] for name in _STORE_ATTRS if name in store.attrs},
        "instrument": describe_array(layout),
        "provenance": provenance,
        **more,
    }
    arrays: dict[str, NDArray[np.float64]] = {}
    if "simulation/event" in store:
        meta["simulation"] = store.group_attrs("simulation")
    if "simulation/thrown" in store:
        meta["thrown"] = store.group_attrs("simulation/thrown")
        for name, column in THROWN.items():
            arrays[name] = store.read(f"simulation/thrown/{column}")
    packed = json.dumps(json_ready(meta), separators=(",", ":"))
    entries = [Field("META", f"S{len(packed)}", "", "JSON: what the format has no place for")]
    for name, values in arrays.items():
        unit = {"E_EDGES": "TeV", "R_EDGES": "m"}.get(name, "")
        entries.append(
            Field(name, "f8", unit, f"Thrown showers: {THROWN[name]}", shape=values.shape)
        )
    writer.table(model.EXTRA, entries).append(
        {"META": np.array([packed.encode()]), **{name: a[None] for name, a in arrays.items()}}
    )


THROWN = {
    "THROWN": "histogram",
    "E_EDGES": "energy_edges",
    "R_EDGES": "core_distance_edges",
}


class Truth:
    """The simulated events of a file, all in memory (some 50 bytes each), found by number.

    Attributes
    ----------
    n_rows
        Of SIM_EVTS.
    notes
        Sentences about what had to be guessed.
    """

    def __init__(self, file: FitsFile) -> None:
        self._path = file.path
        table = file.table(model.SIMULATED, model.SIM_FIELDS)
        self.n_rows, self.notes = table.n_rows, list[str]()
        self._columns = table.read()
        keys = pack_keys(self._columns.pop("MCRUNNUM"), self._columns.pop("MCEVTNUM"))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if twice.size:
            run, number = divmod(int(self._keys[twice[0]]), 1 << 32)
            raise AstriError(f"{table.where} has event {number} of run {run} twice.")
        if "MCPART" not in self._columns:
            self._guess_primary(file.path)
        if model.EXTRA_TRUTH in file:
            more = file.table(model.EXTRA_TRUTH, _SHOWER_ID)
            if more.n_rows != self.n_rows:
                raise AstriError(
                    f"{more.where} has {more.n_rows} rows, but {model.SIMULATED} has {self.n_rows}."
                )
            self._columns["SHOWERID"] = more.read()["SHOWERID"]

    def _guess_primary(self, path: Path) -> None:
        words = re.split(r"[^a-z]+", path.name.lower())
        found = [word for word in PRIMARIES if word in words]
        particle = PRIMARIES[found[0]] if len(found) == 1 else UNKNOWN_TRUTH["true_primary_id"]
        self._columns["MCPART"] = np.full(self.n_rows, particle, np.int32)
        self.notes.append(
            f"{path}: {model.SIMULATED} does not name the particle in a way that is known here; "
            + (f"{found[0]} is taken from the name." if len(found) == 1 else "it is unknown.")
        )

    def take(self, run: NDArray[Any], number: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the columns of simulation/event for events, (event,), without their keys.

        Raises
        ------
        AstriError
            When one of them is not in SIM_EVTS.
        """
        keys = pack_keys(run, number)
        place = np.minimum(np.searchsorted(self._keys, keys), max(self.n_rows - 1, 0))
        found = self._keys[place] == keys if self.n_rows else np.zeros(len(keys), bool)
        if not found.all():
            k = int(np.argmin(found))
            raise AstriError(
                f"{model.SIMULATED} of {self._path} lacks {np.count_nonzero(~found)} of the events "
                f"of {model.EVENTS}, such as event {number[k]} of run {run[k]}."
            )
        rows = self._order[place]
        truth: dict[str, NDArray[Any]] = {
            name: np.full(len(keys), value) for name, value in UNKNOWN_TRUTH.items()
        }
        for name, column in model.TRUTH.items():
            if name in self._columns:
                truth[column] = self._columns[name][rows].astype(truth[column].dtype)
        if "MCZD" in self._columns:
            truth["true_alt"] = 90.0 - truth["true_alt"]
        if "SHOWERID" in self._columns:
            truth["shower_id"] = self._columns["SHOWERID"][rows]
        return truth
