"""Work for tests/test_units.py, in a module that processes of a pool can import.

An input is a text file: its first word says what happens, and a file beside it remembers that it
was tried before.
"""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from astri_gpu.errors import AstriError, OutputBusy
from astri_gpu.execution import THREAD_VARIABLES
from astri_gpu.store import fingerprint


@dataclass(frozen=True)
class Made:
    """What `work` says about a unit."""

    n_images: int
    pid: int
    threads: int
    environment: dict
    warnings: tuple = ()


def work(path, output, config, shown):
    """Write a small file with its provenance, or do what the input says."""
    word, *rest = path.read_text(encoding="utf-8").split()
    tried = path.with_name(path.name + ".tried")
    before = tried.exists()
    tried.touch()
    if word == "bad":
        raise AstriError(f"{path} is bad: copy it again.")
    if word == "unexpected":
        raise ValueError("two\nlines")
    if word == "busy":
        raise OutputBusy(f"Another run is writing {output} at this moment.")
    if word == "die" or (word == "die_once" and not before):
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "no_memory" or (word == "no_memory_once" and not before):
        raise MemoryError
    if word == "sleep":
        path.with_name("pid").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(float(rest[0]))
    record = {
        "stage": "process",
        "config": asdict(config),
        "inputs": [{"path": str(path), "checksum": fingerprint(path)}],
        "started": "2026-01-01T00:00:00+00:00",
    }
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(record), encoding="utf-8")
    if word == "other_run":  # that finished it between our look and our start
        from astri_gpu.errors import UsageError

        raise UsageError(f"The output {output} exists already.")
    names = (*THREAD_VARIABLES, "CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE")
    if shown is not None:
        shown.advance(10)
    return Made(
        n_images=10,
        pid=os.getpid(),
        threads=config.backend.threads,
        environment={name: os.environ.get(name) for name in names},
        warnings=("a pixel is odd",) if word == "warn" else (),
    )


def recorded(output: Path):
    """Return the provenance in an output of `work`."""
    return json.loads(output.read_text(encoding="utf-8"))
