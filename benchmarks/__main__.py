"""Measure everything and write the results: ``python -m benchmarks --help``."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from .chain_rates import measure_chain
from .kernel_rates import measure_kernels
from .machine import describe
from .report import markdown, write_results
from .store_rates import PIPELINES, measure_stores

PARTS = ("chain", "stores", "kernels")


def main(arguments: list[str] | None = None) -> None:
    """Run the parts asked for."""
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
        "command": shlex.join(["python", "-m", "benchmarks", *_without_paths(words)]),
    }
    if "chain" in parts:
        print("chain in memory ...", file=sys.stderr, flush=True)
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
        print("store to store ...", file=sys.stderr, flush=True)
        results["stores"] = measure_stores(
            options.images or (64 if options.quick else 200_000),
            backend="cpu" if "cpu" in backends else backends[0],
            threads=options.threads,
            pipelines=_pipelines(),
            folder=options.scratch,
            fresh=not options.quick,
        )
    if "kernels" in parts:
        print("kernels ...", file=sys.stderr, flush=True)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(PARTS)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a smoke test")
    parser.add_argument("--backends", nargs="+", choices=("numpy", "cpu", "jax", "cupy"))
    parser.add_argument("--batch", nargs="+", type=int, help="images in a batch")
    parser.add_argument("--images", type=int, help="images of the store (default 200000)")
    parser.add_argument("--threads", type=int, default=0, help="of the cpu backend; 0 = all cores")
    parser.add_argument("--scratch", type=Path, help="folder for the temporary stores (1.5 GB)")
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


def _without_paths(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        name = word.split("=")[0]
        if skip or name in ("--output", "--scratch"):
            skip = not skip and "=" not in word
            continue
        kept.append(word)
    return kept


if __name__ == "__main__":
    main()
