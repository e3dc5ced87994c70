"""What stands once in a file of ctapipe: observations, simulation run, who made it."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu import __version__
from astri_gpu.errors import AstriError
from astri_gpu.instrument import ArrayLayout
from astri_gpu.io.ctapipe_export_file import CtapipeFile
from astri_gpu.io.ctapipe_model import (
    DATA_MODEL_VERSION,
    OBSERVATION_BLOCK,
    SCHEDULING_BLOCK,
    SHOWER_DISTRIBUTION,
    SIMULATION_RUN,
    VERSION_ATTR,
)
from astri_gpu.io.ctapipe_model_run import (
    DISTRIBUTION_COLUMNS,
    OBSERVATION_COLUMNS,
    RUN_COLUMNS,
    SCHEDULING_COLUMNS,
)
from astri_gpu.io.ctapipe_time import to_high_res
from astri_gpu.store import Store

__all__ = [
    "Observation",
    "find_observations",
    "reference_attributes",
    "write_observations",
    "write_simulation_run",
]

EVENTS_PER_STEP = 65_536
# Numbers of ctapipe's enumerations.
SB_OBSERVATION, OBSERVING_MODE_UNKNOWN, DRIFT, TRACK, COMPLETED, ALTAZ = 0, -1, 1, 0, 1, 0


@dataclass(frozen=True)
class Observation:
    """The events of one obs_id: how many, and time and array pointing (deg) of the first."""

    obs_id: int
    n_events: int
    time_s: int
    time_ns: int
    alt: float
    az: float


def find_observations(store: Store) -> tuple[list[Observation], int]:
    """Return the observations of a store in the order of their numbers, and the events left out.

    Events with negative numbers (calibration events) are no part of them: ctapipe has none.

    Raises
    ------
    AstriError
        When the store has no other events, or a negative obs_id.
    """
    found: dict[int, Observation] = {}
    names = ["obs_id", "event_id", "time_s", "time_ns", "array_alt", "array_az"]
    n_events, n_left_out = store.n_rows("dl0/event"), 0
    for start in range(0, n_events, EVENTS_PER_STEP):
        rows = store.read_table("dl0/event", names, start, start + EVENTS_PER_STEP)
        keep = rows["event_id"] >= 0
        n_left_out += int(np.count_nonzero(~keep))
        rows = {name: values[keep] for name, values in rows.items()}
        numbers, first, count = np.unique(rows["obs_id"], return_index=True, return_counts=True)
        for number, row, n in zip(numbers.tolist(), first, count.tolist(), strict=True):
            before = found.get(number)
            found[number] = Observation(
                number,
                n + (before.n_events if before else 0),
                before.time_s if before else int(rows["time_s"][row]),
                before.time_ns if before else int(rows["time_ns"][row]),
                before.alt if before else float(rows["array_alt"][row]),
                before.az if before else float(rows["array_az"][row]),
            )
    if not found:
        raise AstriError(
            f"{store.path} holds no shower events ({n_left_out} calibration events): there is "
            "nothing to export for ctapipe."
        )
    if min(found) < 0:
        raise AstriError(f"{store.path} has obs_id {min(found)}; ctapipe's cannot be negative.")
    return [found[number] for number in sorted(found)], n_left_out


def write_observations(
    file: CtapipeFile, observations: Sequence[Observation], simulated: bool
) -> None:
    """Write one scheduling block and one observation block per obs_id."""
    producer = b"simulation" if simulated else b"ASTRI"
    scheduling = file.table(SCHEDULING_BLOCK, SCHEDULING_COLUMNS)
    blocks = file.table(OBSERVATION_BLOCK, OBSERVATION_COLUMNS)
    for each in observations:
        seconds, quarters = to_high_res([each.time_s], [each.time_ns])[0]
        # MJD 40587 is 1970-01-01T00:00:00.
        start = 40587 + (float(seconds) + float(quarters) / 4e9) / 86400
        scheduling.append(
            1,
            {
                "sb_id": each.obs_id,
                "sb_type": SB_OBSERVATION,
                "producer_id": producer,
                "observing_mode": OBSERVING_MODE_UNKNOWN,
                "pointing_mode": DRIFT if simulated else TRACK,
            },
        )
        blocks.append(
            1,
            {
                "obs_id": each.obs_id,
                "sb_id": each.obs_id,
                "producer_id": producer,
                "state": COMPLETED,
                "array_alt": each.alt,
                "array_az": each.az,
                "subarray_pointing_frame": ALTAZ,
                "scheduled_start_time": start,
                "actual_start_time": start,
            },
        )


def write_simulation_run(
    file: CtapipeFile, store: Store, observations: Sequence[Observation]
) -> list[str]:
    """Write the run header and the thrown showers; return sentences about what is missing.

    Without the histogram, ctapipe 0.28 counts the showers without their reuse and so makes
    effective areas too large; where we only know the number, it stands in a single bin. All thrown
    showers are under the first obs_id of several, the others have none: readers use the sum.
    """
    attrs = store.group_attrs("simulation")
    headers = {int(h.get("obs_id", h.get("run_number", -1))): h for h in _run_headers(attrs)}
    runs = file.table(SIMULATION_RUN, RUN_COLUMNS)
    for each in observations:
        header = headers.get(each.obs_id, attrs) if len(observations) > 1 else attrs
        known = {
            field.column: header[field.column] * (field.factor if field.factor != 1 else 1)
            for field in RUN_COLUMNS
            if header.get(field.column) is not None
        }
        runs.append(1, {**known, "obs_id": each.obs_id})
    notes = []
    if attrs.get("partial"):
        notes.append(
            f"{store.path} is a part of its run: the thrown showers in the file are those of the "
            "whole run, so effective areas and rates from it are too small."
        )
    thrown = _thrown(store, attrs)
    if thrown is None:
        notes.append(
            f"{store.path} does not say how many showers were thrown: ctapipe cannot make "
            "effective areas from the file."
        )
        return notes
    histogram, energy_edges, distance_edges, n_entries = thrown
    first = np.arange(len(observations)) == 0
    table = file.table(
        SHOWER_DISTRIBUTION,
        DISTRIBUTION_COLUMNS,
        shapes={
            "bins_energy": energy_edges.shape,
            "bins_core_dist": distance_edges.shape,
            "histogram": histogram.shape,
        },
    )
    first = np.arange(len(observations)) == 0
    table.append(
        len(first),
        {
            "obs_id": [each.obs_id for each in observations],
            "n_entries": np.where(first, n_entries, 0),
            "energy_edges": energy_edges,
            "core_distance_edges": distance_edges,
            "histogram": np.where(first[:, None, None], histogram, 0.0),
        },
    )
    return notes


def _run_headers(attrs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [header for header in attrs.get("mc_run_headers") or [] if isinstance(header, Mapping)]


Thrown = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]


def _thrown(store: Store, attrs: Mapping[str, Any]) -> Thrown | None:
    """Return counts (energy_bin, core_distance_bin), both edges (TeV, m) and their sum."""
    group = "simulation/thrown"
    if group in store:
        rows = store.read_table(group, ["histogram", "energy_edges", "core_distance_edges"])
        histogram = rows["histogram"].T
        n_entries = store.group_attrs(group).get("n_entries")
        total = round(float(histogram.sum())) if n_entries is None else int(n_entries)
        return histogram, rows["energy_edges"], rows["core_distance_edges"], total
    names = (
        "n_showers",
        "energy_range_min",
        "energy_range_max",
        "min_scatter_range",
        "max_scatter_range",
    )
    known = [attrs.get(name) for name in names]
    if any(value is None for value in known):
        return None
    n_showers, energy_min, energy_max, distance_min, distance_max = map(float, known)  # type: ignore[arg-type]
    total = round(n_showers * float(attrs.get("shower_reuse") or 1))
    return (
        np.array([[float(total)]]),
        np.array([energy_min, energy_max]),
        np.array([distance_min, distance_max]),
        total,
    )


def reference_attributes(
    store: Store,
    layout: ArrayLayout,
    observations: Sequence[Observation],
    levels: Sequence[str],
    started: str,
) -> dict[str, str]:
    """Return the 30 root attributes of CTAO's reference metadata.

    Parameters
    ----------
    store, layout
        What is exported.
    observations
        Their numbers become the process id.
    levels
        ctapipe's data levels in the file, such as "DL1_PARAMETERS".
    started
        When the export began, ISO 8601.
    """
    simulated = "simulation" in store
    stopped = datetime.now(UTC).isoformat(timespec="milliseconds")
    description = f"Exported by astri_gpu {__version__}"
    if model := store.attrs.get("simulation_model"):
        description += f". {model}"
    product = "CTA PRODUCT "
    return {
        "CTA REFERENCE VERSION": "1",
        "CTA CONTACT NAME": "unknown",
        "CTA CONTACT EMAIL": "unknown",
        "CTA CONTACT ORGANIZATION": "unknown",
        f"{product}DESCRIPTION": description,
        f"{product}CREATION TIME": _iso(stopped),
        f"{product}ID": str(uuid.uuid4()),
        f"{product}DATA CATEGORY": "Sim" if simulated else "Other",
        f"{product}DATA LEVELS": ",".join(levels),
        f"{product}DATA ASSOCIATION": "Subarray",
        f"{product}DATA MODEL NAME": "ASWG",
        VERSION_ATTR: DATA_MODEL_VERSION,
        f"{product}DATA MODEL URL": "",
        f"{product}FORMAT": "hdf5",
        "CTA PROCESS TYPE": "Simulation" if simulated else "Observation",
        "CTA PROCESS SUBTYPE": "",
        "CTA PROCESS ID": ",".join(str(each.obs_id) for each in observations),
        "CTA ACTIVITY NAME": "astri-gpu export",
        "CTA ACTIVITY TYPE": "software",
        "CTA ACTIVITY ID": str(uuid.uuid4()),
        "CTA ACTIVITY START TIME": _iso(started),
        "CTA ACTIVITY STOP TIME": _iso(stopped),
        "CTA ACTIVITY SOFTWARE NAME": "astri_gpu",
        "CTA ACTIVITY SOFTWARE VERSION": __version__,
        "CTA INSTRUMENT SITE": "Other",
        "CTA INSTRUMENT CLASS": "Subarray",
        "CTA INSTRUMENT TYPE": "unspecified",
        "CTA INSTRUMENT SUBTYPE": "unspecified",
        "CTA INSTRUMENT VERSION": "unspecified",
        "CTA INSTRUMENT ID": layout.name,
    }


def _iso(text: str) -> str:
    """Return a time as astropy reads it back: UTC without the zone."""
    return text.replace("T", " ").removesuffix("+00:00")
