"""Measure everything and write the results: ``python -m benchmarks --help``."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .chain_rates import measure_chain
from .kernel_rates import measure_kernels
from .machine import describe
from .report import markdown, stem_of, write_results
from .row import Row, Settings
from .rows import ROWS, measure_row
from .scaling import measure_scaling
from .scaling_figures import draw
from .store_rates import PIPELINES, measure_stores

PARTS = ("table", "scaling", "chain", "stores", "kernels")
WITH_PATHS = {"--output": 1, "--scratch": 1, "--simtel": sys.maxsize}
"""Options that name places, and how many words follow at most."""


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for; return 1 if a row or a curve failed, otherwise 0."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    parts = options.parts or PARTS
    words = sys.argv[1:] if arguments is None else arguments
    backends = options.backends or _present()
    batches = options.batch or ([32] if options.quick else [256, 1024, 4096])
    results: dict[str, Any] = {
        "machine": describe(),
        "quick": options.quick,
        # Options with places on this machine stay out of the results.
        "command": shlex.join(["python", "-m", "benchmarks", *without_paths(words)]),
        "seconds": {},
    }
    settings = Settings(
        quick=options.quick,
        threads=options.threads,
        scratch=None if options.scratch is None else str(options.scratch.resolve()),
        simtel=tuple(str(path.resolve()) for path in options.simtel),
    )
    if "table" in parts:
        with _clock("table", results):
            results["table"] = [_measured(row, settings) for row in _rows(options.rows)]
    if "scaling" in parts:
        with _clock("scaling", results):
            results["scaling"] = measure_scaling(settings)
        stem = options.output / stem_of(results)
        options.output.mkdir(parents=True, exist_ok=True)
        results["pictures"] = [path.name for path in draw(results["scaling"], stem)]
    if "chain" in parts:
        with _clock("chain", results):
            results["chain"] = measure_chain(
                backends,
                batches,
                n_images=64 if options.quick else 8192,
                n_peer=32 if options.quick else 1024,
                n_rounds=1 if options.quick else 7,
                fresh=not options.quick,
                threads=options.threads,
            )
    if "stores" in parts:
        with _clock("stores", results):
            results["stores"] = measure_stores(
                options.images or (64 if options.quick else 200_000),
                backend="cpu" if "cpu" in backends else backends[0],
                threads=options.threads,
                pipelines=_pipelines(),
                folder=options.scratch,
                fresh=not options.quick,
            )
    if "kernels" in parts:
        with _clock("kernels", results):
            results["kernels"] = measure_kernels(
                [name for name in backends if name != "cpu"],
                batches,
                seconds=0.0 if options.quick else 0.5,
            )
    results["load_average_after"] = [round(value, 2) for value in os.getloadavg()]
    paths = write_results(results, options.output)
    print(markdown(results))
    for path in paths:
        print(f"wrote {path}", file=sys.stderr)
    failed = [entry["name"] for entry in results.get("table", ()) if entry["status"] == "failed"]
    failed += [name for name, curve in results.get("scaling", {}).items() if "failed" in curve]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


@contextmanager
def _clock(part: str, results: dict[str, Any]) -> Iterator[None]:
    """Say that a part begins, and keep how long it took."""
    print(f"{part} ...", file=sys.stderr, flush=True)
    started = time.perf_counter()
    yield
    results["seconds"][part] = round(time.perf_counter() - started, 1)


def _rows(names: list[str] | None) -> list[Row]:
    return [row for row in ROWS if names is None or row.name in names]


def _measured(row: Row, settings: Settings) -> dict[str, Any]:
    started = time.perf_counter()
    entry = measure_row(row, settings)
    seconds = round(time.perf_counter() - started, 1)
    print(f"  {row.name}: {entry['status']}, {seconds} s", file=sys.stderr, flush=True)
    return entry | {"seconds": seconds}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a smoke test")
    parser.add_argument("--backends", nargs="+", choices=("numpy", "cpu", "jax", "cupy"))
    parser.add_argument("--batch", nargs="+", type=int, help="images in a batch")
    parser.add_argument("--images", type=int, help="images of the store (default 200000)")
    parser.add_argument("--threads", type=int, default=0, help="of the cpu backend; 0 = all cores")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[row.name for row in ROWS],
        help="rows of the table, all if left out",
    )
    parser.add_argument(
        "--simtel",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="sim_telarray files for the rows that need real data",
    )
    parser.add_argument("--scratch", type=Path, help="folder for the temporary stores (4 GB)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder for the results (default benchmarks/results)",
    )
    return parser


def _present() -> list[str]:
    """Return the backends that work here."""
    from astri_gpu.backend import BACKENDS, make_backend
    from astri_gpu.errors import AstriError

    found = []
    for name in BACKENDS:
        try:
            make_backend(name)
        except AstriError:
            continue
        found.append(name)
    return found


def _pipelines() -> list[str]:
    import importlib.util

    has_zarrs = importlib.util.find_spec("zarrs") is not None
    return [name for name in PIPELINES if name != "zarrs" or has_zarrs]


def without_paths(words: list[str]) -> list[str]:
    """Return the words of the command line but those that name places on this machine."""
    kept: list[str] = []
    skip = 0
    for word in words:
        if word.startswith("--"):
            name, given, _ = word.partition("=")
            skip = 0 if given else WITH_PATHS.get(name, 0)
            if name not in WITH_PATHS:
                kept.append(word)
        elif skip:
            skip -= 1
        else:
            kept.append(word)
    return kept


if __name__ == "__main__":
    sys.exit(main())
