"""Everything that can be measured on a GPU, by one command and without an installation.

``python benchmarks/gpu.py --output DIR [--quick]`` needs this repository and NumPy, SciPy, JAX,
CuPy, numba, numba-cuda, array-api-compat and jaxtyping; with zarr it measures from disk as well.
Every part runs in a process of its own, so that one that fails or takes all memory leaves the
others alone. Results are written as JSON and Markdown.

``--cpu-dry-run`` goes through every part without a GPU, tiny: JAX on the CPU, and numba-cuda's
simulator. Its times mean nothing; its errors do.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MARK = "part: "
PARTS = {
    "memory": "What the device can do",
    "equality": "(a) Equality with the NumPy reference",
    "kernel": "(b) DL0 → DL1b, data on the device",
    "device_chain": "(c) DL0 → DL1b, from the host and back",
    "disk": "(d) From disk",
    "simulation": "(e) Simulation",
    "tuning": "(f) Shapes of the launch",
}


def find_packages() -> None:
    """Make `astri_gpu` and `benchmarks` of this tree importable, whatever is installed."""
    sys.path.insert(0, str(ROOT))
    if "astri_gpu.kernels" in sys.modules:
        return
    folder = ROOT / "kernels"
    spec = importlib.util.spec_from_file_location(
        "astri_gpu.kernels", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.import_module("astri_gpu")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    package.kernels = module  # type: ignore[attr-defined]


def main(arguments: list[str] | None = None) -> int:
    """Run all parts, write and print the results; return 1 if a part failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds: minutes")
    parser.add_argument("--cpu-dry-run", action="store_true", help="tiny, and without a GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    size = "dry" if options.cpu_dry_run else "quick" if options.quick else "full"
    if options.part:
        return run_part(options.part, size)

    find_packages()
    from benchmarks.machine import describe, slug

    found: dict[str, Any] = {"machine": describe(), "size": size, "parts": {}}
    for name in options.parts:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found["parts"][name] = in_its_own_process(name, size)
    if "memory" in found["parts"]:
        found["machine"]["gpu"] = found["parts"]["memory"].get("device") or found["machine"]["gpu"]
    text = markdown(found)
    options.output.mkdir(parents=True, exist_ok=True)
    suffix = "" if size == "full" else f"-{size}"
    stem = options.output / f"{slug(found['machine'])}-gpu{suffix}"
    stem.with_name(stem.name + ".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_name(stem.name + ".md").write_text(text)
    print(text)
    return int(any("failed" in part for part in found["parts"].values()))


def run_part(name: str, size: str) -> int:
    """Run one part in this process and print its result as a line of JSON."""
    find_packages()
    from benchmarks import gpu_parts

    result = getattr(gpu_parts, f"{name}_part")(gpu_parts.SIZES[size])
    print(MARK + json.dumps(result), flush=True)
    return 0


def in_its_own_process(name: str, size: str) -> dict[str, Any]:
    """Return the result of a part, or ``{"failed": reason}``."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if size == "dry":
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        if name in ("kernel", "equality", "tuning"):
            # The simulator takes the loop text as plain Python.
            environment |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name]
    command += {"dry": ["--cpu-dry-run"], "quick": ["--quick"], "full": []}[size]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode == 0 and lines:
        result: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
        return result
    said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return {"failed": said[-1].replace(str(ROOT) + os.sep, ""), "log": said[-15:]}


def markdown(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine = found["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    note = {"dry": " (dry run: times mean nothing)", "quick": " (quick)"}.get(found["size"], "")
    lines = [
        f"# GPU benchmark{note}",
        f"{machine['date']}, revision {machine['revision']}",
        f"* {machine['gpu'] or 'no GPU'}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, {machine['system']}\n* Python {machine['python']}, "
        f"{libraries}",
    ]
    for name, part in found["parts"].items():
        lines.append(f"## {PARTS[name]}")
        if "failed" in part:
            lines.append(f"**Failed:** {part['failed']}")
        for table in part.get("tables", ()):
            lines += [table["title"], _table(table["columns"], table["rows"])]
        lines += part.get("notes", [])
    return "\n\n".join(lines) + "\n"


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    body = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    body += [[_text(value) for value in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in body)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if value == 0 or abs(value) >= 1e6 or abs(value) < 1e-3:
            return f"{value:.2e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
