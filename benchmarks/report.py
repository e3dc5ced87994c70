"""Results as JSON, and the same as tables to read."""

import json
from pathlib import Path
from typing import Any

from .machine import slug
from .report_rows import curves, rate_text, rows_table, table

__all__ = ["markdown", "stem_of", "write_results"]


def write_results(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``<date>-<machine>.json`` and ``.md`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = stem_of(results)
    paths = [folder / f"{stem}.json", folder / f"{stem}.md"]
    paths[0].write_text(json.dumps(results, indent=1, allow_nan=True) + "\n")
    paths[1].write_text(markdown(results))
    return paths


def stem_of(results: dict[str, Any]) -> str:
    """Return what the names of all files of a run begin with."""
    return slug(results["machine"]) + ("-quick" if results["quick"] else "")


def markdown(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    parts = [_machine(results)]
    if "table" in results:
        parts.append(rows_table(results["table"]))
    if "scaling" in results:
        parts.append(curves(results["scaling"], results["pictures"]))
    if "chain" in results:
        parts.append(_chain(results["chain"]))
    if "stores" in results:
        parts.append(_stores(results["stores"]))
    if "kernels" in results:
        parts.append(_kernels(results["kernels"]))
    return "\n\n".join(parts) + "\n"


def _machine(results: dict[str, Any]) -> str:
    machine = results["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    load = " / ".join(f"{value:g}" for value in machine["load_average"])
    after = " / ".join(f"{value:g}" for value in results["load_average_after"])
    title = "# Benchmark" + (" (quick: a smoke test, not to be quoted)" if results["quick"] else "")
    return (
        f"{title}\n\n"
        f"{machine['date']}, revision {machine['revision']}, command `{results['command']}`\n\n"
        f"* {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; GPU: {machine['gpu'] or 'none'}\n"
        f"* Python {machine['python']}, {libraries}\n"
        f"* Load average (1, 5, 15 min) before: {load}; after, the benchmark included: {after}. "
        "A load above the number of cores before the start means that others were computing, "
        "and rates, unlike ratios, are too low."
    )


def _chain(chain: dict[str, Any]) -> str:
    rows = []
    peer = chain["peer"]
    if peer:
        rows.append(["ctapipe, function by function", "1", rate_text(peer["images_per_s"]), "1"])
        rows[0] += ["", "", ""]
    for case in chain["cases"]:
        ratio = case["ratio_to_ctapipe"]
        rows.append(
            [
                case["backend"],
                case["batch"],
                rate_text(case["images_per_s"]),
                "" if ratio is None else f"{ratio:.3g}",
                f"{case['first_call_s']:.2f}",
                f"{case['memory_before_mib']:.0f}",
                f"{case['peak_memory_mib']:.0f}",
            ]
        )
    pixels = chain["cleaned_pixels"]
    errors = [
        [name, f"{entry['worst']:.1e}", f"`{entry['column']}`", entry["n_images"]]
        for name, entry in chain["errors"].items()
    ]
    return "\n\n".join(
        [
            "## The chain in memory",
            "ADC counts to all columns of DL1b; ctapipe from calibrated charges to fewer "
            f"parameters, one process. Images have {pixels['median']:.0f} pixels after cleaning "
            f"(median; mean {pixels['mean']:.1f}).",
            table(
                "backend | images a batch | images/s | ratio to ctapipe | first call, s | "
                "memory before, MiB | peak memory, MiB",
                rows,
            ),
            table("largest relative difference | value | column | images", errors),
        ]
    )


def _stores(stores: dict[str, Any]) -> str:
    rows = []
    for case in stores["cases"]:
        rate = case["images_per_s"]
        rows.append(
            [
                case["pipeline"],
                rate_text(rate["whole"]),
                rate_text(case["best_images_per_s"]),
                *(rate_text(rate[part]) for part in ("reading", "computing", "writing")),
                f"{case['first_call_s']:.2f}",
                f"{case['peak_memory_mib']:.0f}",
            ]
        )
    return "\n\n".join(
        [
            "## Store to store",
            f"`process` on {stores['n_images']} images ({stores['raw_mib']:.0f} MiB of counts, "
            f"{stores['stored_mib']:.0f} MiB stored), backend {stores['backend']}, "
            f"{stores['threads'] or 'all'} threads; DL1b, DL2a and the output synced to disk.",
            table(
                "codec pipeline | images/s | best | reading alone | computing alone | "
                "writing alone | first run, s | peak memory, MiB",
                rows,
            ),
        ]
    )


def _kernels(kernels: list[dict[str, Any]]) -> str:
    rows = [
        [
            entry["kernel"],
            entry["backend"],
            entry["batch"],
            rate_text(entry["rows_per_s"]),
            f"{1e3 * entry['steady_s']:.3g}",
            f"{entry['first_call_s']:.2f}",
        ]
        for entry in kernels
    ]
    head = "kernel | backend | rows | rows/s | steady call, ms | first call, s"
    return (
        "## Kernels of the array text\n\nA row is an image, or an event of nine images (stereo)."
        "\n\n" + table(head, rows)
    )
