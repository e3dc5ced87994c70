"""The table of rows and the curves as Markdown, and how numbers are written in all tables."""

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["curves", "rate_text", "rows_table", "table"]


def table(head: str, rows: Iterable[Iterable[Any]]) -> str:
    """Return a Markdown table; `head` has the columns between bars, the first is left-aligned."""
    columns = head.split("|")
    lines = ["| " + " | ".join(column.strip() for column in columns) + " |"]
    lines.append("|---" + "|---:" * (len(columns) - 1) + "|")
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def rate_text(value: float) -> str:
    """Return a rate with three digits, and thousands apart."""
    if not math.isfinite(value):
        return str(value)
    digits = max(0, len(str(int(value))) - 3)
    return f"{round(value, -digits):,.0f}".replace(",", " ")


def rows_table(entries: list[dict[str, Any]]) -> str:
    """Return the table of all rows, and what has to be said about them below it."""
    head = (
        "row | rate | peer | ratio | ceiling | share of it | goal | reached | "
        "error against reference | peak memory, MiB"
    )
    parts = [
        "## The table",
        "Each rate beside its peer, measured in the same run, and beside what limits it from "
        "above. README.md says how each is measured.",
        table(head, [_cells(entry) for entry in entries]),
        "\n".join(_notes(entry) for entry in entries),
    ]
    return "\n\n".join(parts)


def _cells(entry: dict[str, Any]) -> list[str]:
    if entry["status"] != "measured":
        text = "not measured" if entry["status"] == "not measured" else "**failed**"
        reason = entry["reason"].replace("|", "\\|")
        return [entry["name"], f"{text}: {reason}", "", "", "", "", entry["goal"], "", "", ""]
    rate, ceiling, error = entry["rate"], entry["ceiling_rate"], entry["error"]
    unit, peak = entry["unit"], entry["peak_memory_mib"]
    return [
        entry["name"],
        f"{rate_text(rate)} {unit}",
        _with(entry["peer"], entry["peer_rate"]),
        "" if entry["ratio"] is None else f"{entry['ratio']:.3g}",
        _with(entry["ceiling"], ceiling),
        "" if not ceiling else f"{100 * rate / ceiling:.3g} %",
        entry["goal"],
        {True: "yes", False: "**no**", None: ""}[entry["reached"]],
        "" if error is None else f"{error:.1e}",
        "" if peak is None else f"{peak:.0f}",
    ]


def _with(what: str, rate: float | None) -> str:
    """Return a contestant or a limit with its number, or nothing if it is not known."""
    return "" if rate is None else f"{what}: {rate_text(rate)}"


def _notes(entry: dict[str, Any]) -> str:
    parts = [entry["what"], *entry.get("notes", ())]
    if entry.get("error") is not None:
        parts.append(f"the error is that from {entry['error_from']}")
    return f"* **{entry['name']}**: " + "; ".join(parts) + "."


def curves(scaling: dict[str, Any], pictures: list[str]) -> str:
    """Return the curves in numbers, and the pictures."""
    tables = {"batch": _batch, "cores": _cores, "files": _files, "memory": _memory}
    parts = ["## How it scales"]
    for name, text in tables.items():
        if name not in scaling:
            continue
        failed = scaling[name].get("failed")
        parts.append(f"{name}: **failed**: {failed}" if failed else text(scaling[name]))
        parts += [f"![{name}]({path})" for path in pictures if path.endswith(f"-{name}.png")]
    return "\n\n".join(parts)


def _batch(found: dict[str, Any]) -> str:
    of_curve = {
        name: {point["batch"]: point["images_per_s"] for point in points}
        for name, points in found["curves"].items()
    }
    sizes = sorted({size for points in of_curve.values() for size in points})
    rows = [
        [
            size,
            *("" if size not in curve else rate_text(curve[size]) for curve in of_curve.values()),
        ]
        for size in sizes
    ]
    peer = found["ctapipe_images_per_s"]
    text = "" if peer is None else f" ctapipe's functions: {rate_text(peer)} images/s."
    return f"Images/s in memory against images in a batch.{text}\n\n" + table(
        " | ".join(["images a batch", *of_curve]), rows
    )


def _cores(found: dict[str, Any]) -> str:
    rows = [
        [
            name,
            point["cores"],
            rate_text(point["images_per_s"]),
            f"{100 * point['efficiency']:.0f} %",
        ]
        for name, points in found["curves"].items()
        for point in points
    ]
    return (
        f"Images/s against cores; processes share {found['n_stores']} stores of "
        f"{found['n_images']} images, and what they import and load is in the clock.\n\n"
        + table("what | cores | images/s | efficiency", rows)
    )


def _files(found: dict[str, Any]) -> str:
    rows = [
        [point["files"], point["images"], f"{point['seconds']:.2f}"] for point in found["points"]
    ]
    return (
        f"Cost of `process` over stores: {found['per_file_s']:.3f} s a store and "
        f"{1e6 * found['per_image_s']:.2f} µs an image; no point is further than "
        f"{100 * found['worst']:.0f} % from that.\n\n" + table("stores | images | seconds", rows)
    )


def _memory(found: dict[str, Any]) -> str:
    rows = [
        [name, point["n"], f"{point['peak_memory_mib']:.0f}", f"{point['seconds']:.1f}"]
        for name, points in found["curves"].items()
        for point in points
    ]
    return "Peak memory of one process against its input.\n\n" + table(
        "stage | images or showers | peak memory, MiB | seconds", rows
    )
