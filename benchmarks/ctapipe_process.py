"""`astri-gpu process` beside `ctapipe-process`, on the same images of one simulated production.

``python -m benchmarks.ctapipe_process --output DIR [--gammas N] [--images N] [--rounds N]``
simulates a production, processes all of it store to store (DL0 to DL1b and DL2a, all cores, images
not kept), exports its first images for ctapipe, and lets `ctapipe-process` make DL1b and DL2 from
them in one process. Both use ctapipe's default cleaning and stereo geometry (`experiment=ctapipe`).
The two take turns, each in a fresh process; imports and first calls are outside the clocks.

Images per second of ctapipe are those of its loop over events alone, which is its best side:
opening and closing of files come on top of it.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from .cases import peak_memory_mib, run_case
from .ctapipe_differences import compare, differences_text

__all__ = ["main", "measure_ctapipe_process", "our_case", "tool_case"]

N_GAMMAS = 2_000_000  # 109 000 images
N_IMAGES = 2000
N_ROUNDS = 3
IMAGES_PER_GAMMA = 0.0544
GOAL = 500

# The defaults of ctapipe 0.28, written down so that another release is asked for the same.
TOOL_CONFIG: dict[str, Any] = {
    "ImageProcessor": {
        "image_cleaner_type": "TailcutsImageCleaner",
        "TailcutsImageCleaner": {
            "picture_threshold_pe": 10.0,
            "boundary_threshold_pe": 5.0,
            "min_picture_neighbors": 2,
            "keep_isolated_pixels": False,
        },
    },
    "ShowerProcessor": {"reconstructor_types": ["HillasReconstructor"]},
    "DataWriter": {"write_dl1_images": False, "write_dl1_parameters": True, "write_dl2": True},
    # The effective focal length of the ASTRI telescope is not public.
    "HDF5EventSource": {"focal_length_choice": "EQUIVALENT"},
}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ctapipe_process")
    parser.add_argument("--output", type=Path, required=True, help="folder for JSON and Markdown")
    parser.add_argument("--gammas", type=int, default=N_GAMMAS, help="showers to simulate")
    parser.add_argument("--images", type=int, default=N_IMAGES, help="about as many for ctapipe")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    parser.add_argument("--threads", type=int, default=0, help="of ours, 0 = all cores")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        found = measure_ctapipe_process(
            Path(folder),
            n_gammas=options.gammas,
            n_images=options.images,
            rounds=options.rounds,
            threads=options.threads,
        )
    text = markdown(found)
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"{found['stem']}-ctapipe-process"
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


def measure_ctapipe_process(
    folder: Path,
    *,
    n_gammas: int = N_GAMMAS,
    n_images: int = N_IMAGES,
    rounds: int = N_ROUNDS,
    threads: int = 0,
) -> dict[str, Any]:
    """Return rates, their ratio, peak memory and differences of both, ready for JSON.

    Parameters
    ----------
    folder
        For temporary files, about 1 kB per simulated shower.
    n_gammas
        Showers of the production that is processed as a whole.
    n_images
        About as many images go through ctapipe, from the first showers of the same production.
    rounds
        Times that both are measured, one after the other.
    threads
        Of ours, 0 = all cores.
    """
    from .machine import describe, slug

    machine = describe()
    whole, part = folder / "whole_dl0.zarr", folder / "part_dl0.zarr"
    clock = time.perf_counter()
    _simulate(whole, n_gammas)
    simulated_s = time.perf_counter() - clock
    # Random numbers belong to showers: these are the first showers of the production above.
    _simulate(part, min(n_gammas, max(1, round(n_images / IMAGES_PER_GAMMA))))
    config = folder / "ctapipe.json"
    config.write_text(json.dumps(TOOL_CONFIG, indent=1))
    ours_part, exported = folder / "part_dl2.zarr", folder / "part.h5"
    _process(part, ours_part, threads=threads, images=True)
    exported_s = _export(ours_part, exported)

    theirs = folder / "ctapipe.h5"
    runs: dict[str, list[dict[str, Any]]] = {"ctapipe": [], "astri_gpu": []}
    for _ in range(rounds):
        runs["ctapipe"].append(
            run_case(
                "ctapipe_tool",
                fresh=False,
                file=str(exported),
                output=str(theirs),
                config=str(config),
            )
        )
        runs["astri_gpu"].append(
            run_case(
                "ctapipe_ours",
                fresh=False,
                store=str(whole),
                warm_up=str(part),
                folder=str(folder),
                threads=threads,
            )
        )
    rates = {name: [_rate(run) for run in each] for name, each in runs.items()}
    pairs = list(zip(rates["astri_gpu"], rates["ctapipe"], strict=True))
    return {
        "machine": machine,
        "stem": slug(machine),
        "n_gammas": n_gammas,
        "simulation_s": simulated_s,
        "export_images_per_s": runs["ctapipe"][0]["n_images"] / exported_s,
        "rounds": runs,
        "images_per_s": {name: statistics.median(each) for name, each in rates.items()},
        "ratio": statistics.median(ours / peer for ours, peer in pairs),
        "goal": GOAL,
        "peak_memory_mib": {
            name: max(run["peak_memory_mib"] for run in each) for name, each in runs.items()
        },
        "differences": compare(ours_part, theirs, folder),
    }


def _rate(run: dict[str, Any]) -> float:
    return float(run["n_images"] / run["seconds"])


def _simulate(output: Path, n_showers: int) -> None:
    from astri_gpu.config import compose
    from astri_gpu.stages import simulate

    options = ["production=gamma", f"n_showers={n_showers}", "seed=1", f"output='{output}'"]
    simulate.run(compose("simulate", [*options, "backend=cpu", "progress=false"]))


def _process(store: Path, output: Path, *, threads: int, images: bool) -> None:
    from astri_gpu.config import compose
    from astri_gpu.stages import process

    options = [
        f"input='{store}'",
        f"output='{output}'",
        "experiment=ctapipe",
        "backend=cpu",
        f"backend.threads={threads}",
        f"images={str(images).lower()}",
        "progress=false",
    ]
    process.run(compose("process", options))


def _export(store: Path, output: Path) -> float:
    """Write the file for ctapipe and return the seconds."""
    from astri_gpu.io.ctapipe_export import export_store

    clock = time.perf_counter()
    export_store(store, output)
    return time.perf_counter() - clock


def our_case(store: str, warm_up: str, folder: str, threads: int) -> dict[str, Any]:
    """Return seconds, images and peak memory of ours; `warm_up` is processed first."""
    from astri_gpu.store import open_store

    with tempfile.TemporaryDirectory(dir=folder) as name:
        _process(Path(warm_up), Path(name) / "warm_up.zarr", threads=threads, images=False)
        clock = time.perf_counter()
        _process(Path(store), Path(name) / "dl2.zarr", threads=threads, images=False)
        seconds = time.perf_counter() - clock
    return {
        "seconds": seconds,
        "n_images": open_store(store).attrs["n_images"],
        "peak_memory_mib": peak_memory_mib(),
    }


def tool_case(file: str, output: str, config: str) -> dict[str, Any]:
    """Return the seconds of `ctapipe-process`, part by part, and its peak memory.

    ``seconds`` are those of its loop over events; ``setup_s`` and ``finish_s`` come on top.
    """
    started = time.perf_counter()
    import tables
    from ctapipe.core import run_tool
    from ctapipe.tools.process import ProcessorTool

    import_s = time.perf_counter() - started
    spent = {"setup": 0.0, "start": 0.0, "finish": 0.0}

    class Timed(ProcessorTool):  # type: ignore[misc]
        """The tool with a clock in every part of it."""

        name = ProcessorTool.name

        def setup(self) -> None:
            spent["setup"] = _seconds_of(super().setup)

        def start(self) -> None:
            spent["start"] = _seconds_of(super().start)

        def finish(self) -> None:
            spent["finish"] = _seconds_of(super().finish)

    arguments = [f"--input={file}", f"--output={output}", f"--config={config}", "--overwrite"]
    arguments += ["--recompute-dl1", "--recompute-dl2", "--quiet", "--no-progress"]
    arguments += [f"--provenance-log={Path(output).with_suffix('.log')}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_tool(Timed(), arguments, cwd=Path(output).parent, raises=True)
    with tables.open_file(file) as opened:
        n_images = opened.get_node("/dl1/event/telescope/trigger").nrows
        n_events = opened.get_node("/dl1/event/subarray/trigger").nrows
    return {
        "seconds": spent["start"],
        "setup_s": spent["setup"],
        "finish_s": spent["finish"],
        "import_s": import_s,
        "n_images": int(n_images),
        "n_events": int(n_events),
        "peak_memory_mib": peak_memory_mib(),
    }


def _seconds_of(call: Any) -> float:
    clock = time.perf_counter()
    call()
    return time.perf_counter() - clock


def markdown(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    from .report_rows import rate_text, table

    machine, memory, rate = found["machine"], found["peak_memory_mib"], found["images_per_s"]
    tool, ours = found["rounds"]["ctapipe"], found["rounds"]["astri_gpu"]
    reached = "reached" if found["ratio"] >= found["goal"] else "not reached"
    extra = statistics.median(run["setup_s"] + run["finish_s"] for run in tool)
    begin = statistics.median(run["import_s"] for run in tool)
    rows = [
        [
            "`ctapipe-process`, DL1 images -> DL1b, DL2",
            "1",
            tool[0]["n_images"],
            rate_text(rate["ctapipe"]),
            "1",
            f"{memory['ctapipe']:.0f}",
        ],
        [
            "`astri-gpu process`, DL0 -> DL1b, DL2a",
            machine["cores"],
            ours[0]["n_images"],
            rate_text(rate["astri_gpu"]),
            f"{found['ratio']:.0f}",
            f"{memory['astri_gpu']:.0f}",
        ],
    ]
    load = " / ".join(f"{value:g}" for value in machine["load_average"])
    parts = [
        "# `process` beside `ctapipe-process`",
        f"{machine['date']}, revision {machine['revision']}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}, "
        f"ctapipe {machine['libraries'].get('ctapipe')}; load average before: {load}.",
        f"A simulated production of {found['n_gammas']} gammas; ctapipe has its first images. "
        f"Rounds: {len(tool)}, in turn, each in a fresh process; medians. Rate of ctapipe: its "
        f"loop over events, without {begin:.1f} s of imports and {extra:.1f} s of opening and "
        "closing files. Rate of ours: store to store, written and synced to disk.",
        table("what | cores | images | images/s | ratio | peak memory, MiB", rows),
        f"Goal: {found['goal']} times; {reached}.",
        "## The same results",
        *differences_text(found["differences"]),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
