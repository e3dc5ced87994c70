"""Exporting: whole or not at all, nothing twice, nothing else needed, and sentences."""

import dataclasses
import os
import subprocess
import sys

import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, OutputBusy, UsageError
from astri_gpu.io import ctapipe_export_images
from astri_gpu.io import ctapipe_model as model
from astri_gpu.io.ctapipe_export import export_store
from astri_gpu.output_file import whole_file
from astri_gpu.stages import export

tables = pytest.importorskip("tables")


def test_the_stage_says_what_it_did_and_repeats_nothing(exported, tmp_path):
    inputs = [str(exported[name].dl2) for name in ("gamma", "proton")]
    overrides = [f"input={inputs}", f"output='{tmp_path}/out'", "images=false", "progress=false"]
    config = compose("export", [*overrides, "execution.n_workers=1"])
    summary = export.run(config)
    assert sorted(os.listdir(tmp_path / "out")) == ["gamma_dl2.h5", "proton_dl2.h5"]
    assert f"export: 2 stores, {summary.n_events} events (" in summary.line
    assert "calibration events left out)" in summary.line
    assert f"{summary.n_left_out} calibration events (negative event_id)" in summary.warnings[0]
    made = {path: path.stat().st_mtime_ns for path in summary.outputs}
    again = export.run(config)
    assert (again.n_done, again.n_before) == (0, 2)
    assert made == {path: path.stat().st_mtime_ns for path in summary.outputs}
    with pytest.raises(UsageError, match="other options"):
        export.run(dataclasses.replace(config, images=True))


def test_an_existing_file_is_replaced_only_on_request(exported, tmp_path):
    (tmp_path / "a.h5").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.h5 exists already"):
        export_store(exported["gamma"].dl2, tmp_path / "a.h5", images=False)
    assert (tmp_path / "a.h5").read_text() == "mine"
    export_store(exported["gamma"].dl2, tmp_path / "a.h5", images=False, overwrite=True)
    assert (tmp_path / "a.h5").read_bytes().startswith(model.MAGIC)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_failure_in_the_middle_leaves_nothing(exported, tmp_path, monkeypatch):
    def broken(self, rows, pointing):
        raise AstriError("broken")

    monkeypatch.setattr(ctapipe_export_images.ImageTables, "_append", broken)
    with pytest.raises(AstriError, match="broken"):
        export_store(exported["gamma"].dl2, tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


def test_leftovers_are_cleared_and_two_runs_refused(tmp_path):
    partial = tmp_path / "a.h5.partial"
    partial.mkdir()
    (partial / "a.h5").write_text("left by a killed run")
    with whole_file(tmp_path / "a.h5") as path:
        assert not path.exists()
        path.write_text("new")
        with pytest.raises(OutputBusy, match="Another run"), whole_file(tmp_path / "a.h5"):
            pytest.fail("the body must not run")
        assert path.exists()
    assert (tmp_path / "a.h5").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.h5"]


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_full_disk_is_one_sentence(exported, tmp_path):
    """Wherever it happens: HDF5 itself says nothing when the last of a file does not fit."""
    size = exported["gamma"].file.stat().st_size
    limits = [4096, 200_000, size // 2, size - 2048]
    done = run_python(
        "import os, resource, sys\n"
        "from astri_gpu.errors import AstriError\n"
        "from astri_gpu.io.ctapipe_export import export_store\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "for limit in sys.argv[3:]:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))\n"
        "    try:\n"
        "        export_store(sys.argv[1], sys.argv[2])\n"
        "    except AstriError as error:\n"
        "        print(error, os.listdir(os.path.dirname(sys.argv[2])))\n",
        exported["gamma"].dl2,
        tmp_path / "a.h5",
        *limits,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    for line in lines:
        assert "a.h5 is full (File too large): free space" in line
        assert line.endswith("[]")
    assert os.listdir(tmp_path) == []


def test_neither_ctapipe_nor_pickled_classes_are_imported(exported, tmp_path):
    done = run_python(
        "import sys\n"
        "from astri_gpu.io.ctapipe_export import export_store\n"
        "export_store(sys.argv[1], sys.argv[2], images=False)\n"
        "assert 'ctapipe' not in sys.modules\n",
        exported["gamma"].dl2,
        tmp_path / "a.h5",
    )
    assert done.returncode == 0, done.stderr


def test_without_pytables_there_is_a_sentence(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tables", None)
    with pytest.raises(AstriError, match=r"pip install 'astri_gpu\[exchange\]'"):
        export_store(exported["gamma"].dl2, tmp_path / "a.h5")


def test_stores_that_cannot_be_exported(exported, tmp_path):
    with pytest.raises(AstriError, match="is a DL0 store without image parameters"):
        export_store(exported["gamma"].dl0, tmp_path / "a.h5")
    with pytest.raises(UsageError, match="holds no charges of pixels"):
        export_store(exported["bare"].dl2, tmp_path / "a.h5", images=True)
    export_store(exported["bare"].dl2, tmp_path / "a.h5")
    with tables.open_file(tmp_path / "a.h5") as file:
        assert model.DL1_IMAGES not in file
        assert model.DL1_PARAMETERS in file
