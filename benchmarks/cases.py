"""One case in a process of its own: peak memory and first calls cannot be had in a shared one.

``python -m benchmarks.cases '{"kind": "chain", "backend": "cpu", "batch": 1024}'`` prints JSON.
"""

import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CASES", "peak_memory_mib", "run_case"]

N_BATCHES = 3

# Kinds of cases: module and function, which takes the options and returns what fits into JSON.
CASES = {
    "chain": ("cases", "chain_case"),
    "ctapipe_ours": ("ctapipe_process", "our_case"),
    "ctapipe_tool": ("ctapipe_process", "tool_case"),
    "fits": ("fits_tables", "fits_case"),
    "ingest": ("rows.ingest", "ingest_case"),
    "packets": ("packet_files", "packet_case"),
    "process": ("runs", "process_case"),
    "production": ("productions", "production_case"),
    "reconstruct": ("reconstruct_rates", "reconstruct_case"),
    "row": ("rows", "row_case"),
    "simulate": ("runs", "simulate_case"),
    "store": ("store_rates", "store_case"),
    "waveforms": ("waveforms", "waveform_case"),
}


def run_case(kind: str, *, fresh: bool, **options: Any) -> dict[str, Any]:
    """Return the result of one case, from a process of its own.

    With `fresh` its cache of compiled code is empty, so that the first call compiles.

    Raises
    ------
    RuntimeError
        When the process fails; the message is what it wrote, or how it ended.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | ({"XDG_CACHE_HOME": cache} if fresh else {})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.cases", json.dumps({"kind": kind, **options})],
            cwd=Path(__file__).resolve().parents[1],
            env=environment,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        said = done.stderr.strip() or "it wrote nothing"
        if done.returncode < 0:
            said += f"\nthe process was ended by signal {-done.returncode}"
        raise RuntimeError(f"The case {kind} {options} failed:\n{said}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_memory_mib() -> float:
    """Return the largest resident size of this process so far in MiB.

    The kernel's own mark, because getrusage hands the parent's down to its children.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found.group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def chain_case(backend: str, batch: int, threads: int) -> dict[str, Any]:
    """Return the first call, the peak memory, and the memory held before the first call."""
    from .astri_images import make_events
    from .chains import our_chain, setup
    from .timing import first_call

    made = setup(make_events(batch))
    chosen, run = our_chain(made, backend, threads=threads)
    step = min(batch, chosen.batch_limit or batch)
    before = peak_memory_mib()
    first = first_call(lambda: run(0, step))
    for _ in range(N_BATCHES):
        run(0, step)
    return {
        "first_call_s": first,
        "peak_memory_mib": peak_memory_mib(),
        "memory_before_mib": before,
    }


def main() -> None:
    """Run the case that the first argument describes and print its result as JSON."""
    options = json.loads(sys.argv[1])
    module, function = CASES[options.pop("kind")]
    case: Callable[..., dict[str, Any]] = getattr(
        importlib.import_module(f"benchmarks.{module}"), function
    )
    print(json.dumps(case(**options)))


if __name__ == "__main__":
    main()
