"""Files that ctapipe-process made of real simulations, changed copies of them, and their stores."""

import shutil
import warnings
from pathlib import Path

import pytest

from astri_gpu.config import compose
from astri_gpu.stages import ingest
from astri_gpu.store import Store, open_store

STEREO = "test_lasercal_v3.simtel.gz"  # 4 telescopes, 3 events; the file is truncated


@pytest.fixture(autouse=True)
def _needs_ctapipe(request):
    """Skip tests with the mark `peers` where ctapipe is missing, or fail where it must not be."""
    if request.node.get_closest_marker("peers"):
        request.getfixturevalue("peers")


@pytest.fixture(scope="session")
def made(simtel, tmp_path_factory):
    """Return a function from a file name to what ctapipe-process made of it, run once."""
    folder = tmp_path_factory.mktemp("ctapipe")

    def get(name: str, *options: str) -> Path:
        from ctapipe.core import run_tool
        from ctapipe.tools.process import ProcessorTool

        output = folder / f"{name}{'_'.join(options)}.h5"
        if not output.exists():
            arguments = [f"--input={simtel(name)}", f"--output={output}", "--quiet"]
            arguments += ["--no-progress", f"--provenance-log={folder / 'log'}"]
            arguments += ["--write-images", "--write-parameters", "--write-showers"]
            arguments += ["--SimTelEventSource.focal_length_choice=EQUIVALENT", *options]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of ctapipe, and of the truncated file
                assert run_tool(ProcessorTool(), arguments, cwd=folder, raises=True) == 0
        return output

    return get


@pytest.fixture
def stored(tmp_path):
    """Return a function that ingests a file and opens the store."""

    def get(path: Path, *overrides: str) -> Store:
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        arguments = [f"input='{path}'", f"output='{output}'", "progress=false", *overrides]
        ingest.run(compose("ingest", arguments))
        return open_store(output)

    return get


@pytest.fixture
def copied(made, tmp_path):
    """Return a function that copies a file of ctapipe and lets `change` work on it."""

    def get(change=None, name: str = STEREO) -> Path:
        import tables

        path = tmp_path / "changed.h5"
        shutil.copyfile(made(name), path)
        path.chmod(0o644)
        if change is not None:
            with tables.open_file(str(path), "a") as file:
                change(file)
        return path

    return get
