"""The stage `info`: what a store holds, on one screen."""

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from astri_gpu.config import InfoConfig
    from astri_gpu.instrument import ArrayLayout, CameraDescription
    from astri_gpu.store import Store
    from astri_gpu.store_summary import ColumnSize, ImageCounts

__all__ = ["run"]

MOST_ROWS = 40  # telescopes or multiplicities; the rest is summed up
MOST_REASONS = 8  # against good time, the longest first
BAR = 40  # characters
PIPE_WIDTH = 100  # characters where there is no terminal
WIDE = 72  # narrower terminals do not see the columns of the tables


def run(config: "InfoConfig") -> None:
    """Print what a store holds.

    Raises
    ------
    AstriError
        When the input is not a finished store or is damaged.
    """
    from rich.console import Console

    from astri_gpu.store import open_store
    from astri_gpu.store_layout import read_layout
    from astri_gpu.store_summary import count_images

    store = open_store(config.input)
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    console = Console(width=width, highlight=False, soft_wrap=False)
    layout = read_layout(store)
    counts = count_images(store)
    _overview(console, store, layout, counts)
    _instrument(console, layout, counts)
    _multiplicity(console, counts)
    if store.attrs.get("target"):
        _run(console, store)
    if "simulation" in store:
        _simulation(console, store)
    _stereo(console, store)
    _tables(console, store)
    _provenance(console, store)


def _heading(console: "Console", text: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(text, style="bold cyan"))


def _facts(console: "Console", facts: Sequence[tuple[str, Any]]) -> None:
    """Print names and values in two columns, empty values left out."""
    table = _grid("", "")
    for name, value in facts:
        if value not in (None, ""):
            table.add_row(_plain(name, "dim"), _plain(value))
    console.print(table)


def _plain(value: Any, style: str = "") -> Any:
    """Return text as it is: square brackets of file names are no markup."""
    from rich.text import Text

    return Text(str(value), style=style)


def _grid(*headings: str, right: Sequence[int] = ()) -> "Table":
    from rich.table import Table

    table = Table(
        box=None, show_header=any(headings), padding=(0, 2, 0, 0), header_style="dim", pad_edge=True
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    return table


def _size(n_bytes: float) -> str:
    """Return bytes for people: 812 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"


def _count(number: int, singular: str) -> str:
    return f"{number:,} {singular}{'' if number == 1 else 's'}"


def _interval(values: Any, unit: str) -> str:
    # Rounded, because a direction of 0 comes out of a file as -3.9e-06; + 0.0 turns -0.0 into 0.
    low, high = (round(float(value), 5) + 0.0 for value in (np.min(values), np.max(values)))
    return f"{low:.6g} {unit}" if low == high else f"{low:.6g} to {high:.6g} {unit}"


def _overview(
    console: "Console", store: "Store", layout: "ArrayLayout", counts: "ImageCounts"
) -> None:
    from rich.text import Text

    attrs = store.attrs
    console.print(Text(str(store.path), style="bold"))
    if attrs.get("truncated"):
        console.print(
            Text(
                "The source file was damaged or cut off: the store ends with its last complete "
                "event.",
                style="bold yellow",
            )
        )
    if attrs.get("simulation_model"):
        console.print(Text(str(attrs["simulation_model"]), style="yellow"))
    events = _count(sum(counts.multiplicity.values()), "event")
    times = store.read("dl0/event/time_s")
    _facts(
        console,
        [
            ("level", attrs.get("data_level")),
            ("kind", attrs.get("kind")),
            ("observation", attrs.get("obs_id")),
            ("content", f"{events}, {_count(counts.total, 'image')}"),
            ("event types", _event_types(store)),
            ("time (UTC)", _times(times)),
            ("source", attrs.get("source")),
            ("schema version", attrs.get("schema_version")),
        ],
    )


def _event_types(store: "Store") -> str:
    names = {
        0: "flat field",
        1: "single p.e.",
        2: "pedestal",
        3: "dark pedestal",
        5: "sky pedestal",
        32: "shower",
    }
    types, numbers = np.unique(store.read("dl0/event/event_type"), return_counts=True)
    return ", ".join(
        f"{number:,} {names.get(int(kind), f'type {kind}')}"
        for kind, number in zip(types, numbers, strict=True)
    )


def _times(times: Any) -> str:
    known = times[times > 0]  # calibration events of simulations have no time
    if not known.size:
        return ""
    first, last = (str(np.datetime64(int(t), "s")) for t in (known.min(), known.max()))
    return first if first == last else f"{first} to {last}"


def _instrument(console: "Console", layout: "ArrayLayout", counts: "ImageCounts") -> None:
    _heading(console, "Array")
    where = ""
    if np.isfinite([layout.latitude_deg, layout.longitude_deg]).all():
        where = f"latitude {layout.latitude_deg:.5f} deg, longitude {layout.longitude_deg:.5f} deg"
    facts = [("name", layout.name), ("telescopes", layout.n_telescopes)]
    if layout.n_telescopes:
        facts += [
            ("towards North", _interval(layout.x, "m")),
            ("towards West", _interval(layout.y, "m")),
            ("height", _interval(layout.z, "m")),
        ]
    if np.isfinite(layout.altitude_m):
        facts.append(("observation level", f"{layout.altitude_m:.0f} m above sea level"))
    _facts(console, [*facts, ("position", where), ("note", layout.note)])

    _heading(console, "Cameras")
    _facts(
        console,
        [
            (camera.name, _camera(camera, int((layout.camera_index == index).sum()), counts))
            for index, camera in enumerate(layout.cameras)
        ],
    )

    _heading(console, "Images per telescope")
    names = [layout.cameras[index].name for index in layout.camera_index]
    rows = [
        (f"{tel_id} {name}", counts.per_telescope.get(int(tel_id), 0))
        for tel_id, name in zip(layout.tel_id, names, strict=True)
    ]
    _bars(console, rows)


def _camera(camera: "CameraDescription", n_telescopes: int, counts: "ImageCounts") -> str:
    readout, optics = camera.readout, camera.optics
    effective = optics.effective_focal_length_m
    return ", ".join(
        [
            f"{_count(n_telescopes, 'telescope')} ({optics.name})",
            f"{camera.geometry.n_pixels} {camera.geometry.shape} pixels",
            _count(readout.n_gains, "gain"),
            _count(readout.n_samples, "sample"),
            f"focal length {optics.focal_length_m:.5g} m "
            f"(effective {'unknown' if effective is None else f'{effective:.5g} m'})",
            _count(counts.per_camera.get(camera.name, 0), "image"),
        ]
    )


def _bars(console: "Console", rows: Sequence[tuple[str, int]]) -> None:
    """Print numbers with bars; plain ASCII where the output cannot show anything else."""
    mark = "#" if console.options.ascii_only else "█"
    shown = list(rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        rest = rows[MOST_ROWS:]
        shown.append((f"{len(rest)} more", sum(number for _, number in rest)))
    largest = max((number for _, number in shown), default=0)
    room = max(5, min(BAR, console.width - 40))
    table = _grid("", "", "", right=(1,))
    for name, number in shown:
        length = -(-number * room // largest) if largest else 0
        table.add_row(_plain(name), f"{number:,}", _plain(mark * length, "cyan"))
    console.print(table)


def _multiplicity(console: "Console", counts: "ImageCounts") -> None:
    if counts.multiplicity:
        _heading(console, "Events by number of images")
        _bars(
            console,
            [(_count(images, "image"), events) for images, events in counts.multiplicity.items()],
        )


def _run(console: "Console", store: "Store") -> None:
    """Print what is known of an observation run."""
    attrs = store.attrs
    monitoring = store.group_attrs("monitoring") if "monitoring" in store else {}
    _heading(console, "Run")

    def place(ra: str, dec: str) -> str:
        known = attrs.get(ra) is not None and attrs.get(dec) is not None
        return f"RA {attrs[ra]:.4f} deg, Dec {attrs[dec]:.4f} deg (ICRS)" if known else ""

    facts = [("target", attrs["target"]), ("its place", place("ra_deg", "dec_deg"))]
    facts.append(("pointing", place("ra_pnt_deg", "dec_pnt_deg")))
    if monitoring.get("good_time_s") is not None:
        times = monitoring["good_time_s"], monitoring["run_time_s"]
        facts.append(("good time", "{:,.1f} of {:,.1f} s".format(*times)))
    reasons = monitoring.get("good_time_reasons", [])
    facts += [("not good", text) for text in reasons[:MOST_REASONS]]
    if len(reasons) > MOST_REASONS:
        facts.append(("", f"and {len(reasons) - MOST_REASONS} more, shorter"))
    if monitoring.get("array_dead_time_share") is not None:
        facts.append(("dead time", f"{monitoring['array_dead_time_share']:.3%}"))
    _facts(console, facts)


def _simulation(console: "Console", store: "Store") -> None:
    attrs = store.group_attrs("simulation")
    _heading(console, "Simulation")

    def pair(name: str, unit: str) -> str:
        values = [attrs.get(f"{end}_{name}") for end in ("min", "max")]
        return "" if None in values else _interval(values, unit)

    energy = [attrs.get(f"energy_range_{end}") for end in ("min", "max")]
    n_showers, reuse = attrs.get("n_showers"), attrs.get("shower_reuse")
    facts = [
        ("energy range", "" if None in energy else _interval(energy, "TeV")),
        ("spectral index", attrs.get("spectral_index")),
        ("showers", _showers(n_showers, reuse)),
        ("scatter radius", pair("scatter_range", "m")),
        ("view cone", pair("viewcone_radius", "deg")),
        ("altitude", pair("alt", "deg")),
        ("azimuth", pair("az", "deg")),
    ]
    if "simulation/thrown" in store:
        entries = store.group_attrs("simulation/thrown").get("n_entries")
        total = store.read("simulation/thrown/histogram").sum()
        facts.append(("thrown events", f"{total if entries is None else entries:,.0f}"))
    _facts(console, facts)


def _showers(n_showers: int | None, reuse: int | None) -> str:
    if n_showers is None:
        return ""
    return f"{n_showers:,}" + (f", each used {reuse} times" if reuse and reuse > 1 else "")


def _stereo(console: "Console", store: "Store") -> None:
    from astri_gpu.store_summary import stereo_summary

    stereo = stereo_summary(store)
    if stereo is None:
        return
    _heading(console, "Stereo reconstruction")
    share = f" ({stereo.n_valid / stereo.n_events:.1%})" if stereo.n_events else ""
    facts = [("valid", f"{stereo.n_valid:,} of {_count(stereo.n_events, 'event')}{share}")]
    if stereo.direction_error_deg is not None:
        facts.append(("direction error", f"{stereo.direction_error_deg:.4g} deg (68 % contained)"))
    if stereo.core_error_m is not None:
        facts.append(("core error", f"{stereo.core_error_m:.4g} m (68 % contained)"))
    _facts(console, facts)


def _tables(console: "Console", store: "Store") -> None:
    from astri_gpu.store_summary import column_sizes, tables

    _heading(console, "Tables")
    wide = console.width >= WIDE
    headings = ("table", "rows", "on disk", "columns")
    table = _grid(*headings[: 4 if wide else 3], right=(1, 2))
    total = 0
    for path in tables(store):
        columns = column_sizes(store, path)
        on_disk = sum(column.on_disk for column in columns)
        total += on_disk
        n_rows = columns[0].shape[0] if columns and columns[0].shape else 0
        row = (_plain(path), f"{n_rows:,}", _size(on_disk), _plain(_columns(columns)))
        table.add_row(*row[: 4 if wide else 3])
    table.add_row("in all", "", _size(total))
    console.print(table)


def _columns(columns: Sequence["ColumnSize"]) -> str:
    """Return columns in words: large ones with size, families of small ones with their number."""
    large = [
        f"{column.name}[{', '.join(column.dims[1:])}] {column.dtype} {_size(column.on_disk)}"
        for column in columns
        if len(column.shape) > 1
    ]
    small = sorted(column.name for column in columns if len(column.shape) <= 1)
    words = []
    for family, members in groupby(small, key=lambda name: name.split("_")[0]):
        names = list(members)
        words += names if len(names) < 3 else [f"{family}_* ({len(names)})"]
    return ", ".join([*large, *words])


def _provenance(console: "Console", store: "Store") -> None:
    from astri_gpu.config import STAGES
    from astri_gpu.lineage.reader import options_changed

    record: Mapping[str, Any] = store.attrs.get("provenance") or {}
    if not record:
        return
    _heading(console, "Provenance")
    stage = str(record.get("stage", ""))
    facts: list[tuple[str, Any]] = [
        ("stage", stage),
        ("software", f"{record.get('software', '')} {record.get('version', '')}".strip()),
        ("time (UTC)", record.get("stopped")),
    ]
    for entry in record.get("inputs", []):
        facts.append(("input", f"{Path(entry['path']).name}  {entry['checksum']}"))
    if stage in STAGES:
        changed = options_changed(stage, record.get("config", {}))
        options = ", ".join(f"{key}={value}" for key, value in changed.items())
        facts.append(("not default", options or "nothing"))
    libraries = ", ".join(f"{name} {text}" for name, text in record.get("libraries", {}).items())
    _facts(console, [*facts, ("libraries", libraries)])
