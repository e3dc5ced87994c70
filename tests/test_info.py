"""The summary of a store: what it says, and that it says it anywhere."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from astri_gpu.cli import main
from astri_gpu.config import InfoConfig, IngestConfig, ProcessConfig
from astri_gpu.errors import AstriError
from astri_gpu.stages import info, ingest, process
from astri_gpu.store import create, open_store
from astri_gpu.store_summary import (
    changed_options,
    column_sizes,
    count_images,
    stereo_summary,
    tables,
)

COMMAND = [sys.executable, "-m", "astri_gpu.cli", "info"]


@pytest.fixture(scope="module")
def stores(simtel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("info")
    dl0, dl2 = folder / "dl0.zarr", folder / "dl2 [draft].zarr"
    ingest.run(
        IngestConfig(
            input=str(simtel("history_meta_75.simtel.zst")),
            output=str(dl0),
            progress=False,
            true_images=False,
        )
    )
    process.run(ProcessConfig(input=str(dl0), output=str(dl2), progress=False))
    return dl0, dl2


def test_counts(stores):
    counts = count_images(open_store(stores[0]))
    assert counts.per_camera == {"LSTCam": 4, "NectarCam": 11}
    assert counts.per_telescope == dict.fromkeys([*range(1, 15), 19], 1)
    assert counts.multiplicity == {15: 1}
    assert counts.total == 15


def test_tables_and_sizes_cover_the_store(stores):
    store = open_store(stores[0])
    names = tables(store)
    assert {"dl0/event", "dl0/image/LSTCam", "instrument/telescope", "simulation/thrown"} <= set(
        names
    )
    arrays = {
        file.parent
        for file in store.path.rglob("zarr.json")
        if json.loads(file.read_text())["node_type"] == "array"
    }
    listed = {store.path / table / column for table in names for column in store.columns(table)}
    assert listed == arrays
    on_disk = sum(column.on_disk for table in names for column in column_sizes(store, table))
    files = (file for array in arrays for file in array.rglob("*") if file.is_file())
    assert on_disk == sum(file.stat().st_size for file in files)
    waveform = {entry.name: entry for entry in column_sizes(store, "dl0/image/LSTCam")}["waveform"]
    assert waveform.dims == ("image", "gain", "pixel", "sample")
    assert waveform.shape == (4, 2, 1855, 40)
    assert waveform.dtype == "u2"


def test_stereo_errors_are_containments(stores):
    store = open_store(stores[1])
    stereo = stereo_summary(store)
    assert (stereo.n_events, stereo.n_valid) == (1, 1)
    core = store.read_table("dl2/event")
    true = store.read_table("simulation/event")
    assert stereo.core_error_m == pytest.approx(
        np.hypot(
            core["stereo_core_x"] - true["true_core_x"], core["stereo_core_y"] - true["true_core_y"]
        )[0]
    )
    assert 0 < stereo.direction_error_deg < 1
    assert stereo_summary(open_store(stores[0])) is None


def test_changed_options():
    config = {"images": True, "cleaning": {"picture_pe": 5.0, "boundary_pe": 3.0}, "other": 1}
    defaults = {"images": False, "cleaning.picture_pe": 6.0, "cleaning.boundary_pe": 3.0}
    assert changed_options(config, defaults) == {"images": True, "cleaning.picture_pe": 5.0}


def test_dl0_in_words(stores, capsys):
    info.run(InfoConfig(input=str(stores[0])))
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "level DL0",
        "kind gamma",
        "observation 4",
        "1 event, 15 images",
        "event types 1 shower",
        "schema version 1",
        "LaPalma-baseline-prod5",
        "towards North -375.89 to 221.62 m",
        "LSTCam 4 telescopes (LST), 1855 hexagon pixels, 2 gains, 40 samples",
        "15 images 1 █",
        "energy range 1 to 5 TeV",
        "azimuth 0 deg",
        "thrown events",
        "waveform[gain, pixel, sample] u2",
        "input history_meta_75.simtel.zst sha256:",
        "not default true_images=False",
    ):
        assert part in text
    assert "Stereo reconstruction" not in text
    assert "\x1b" not in text


def test_dl2_in_words(stores, capsys):
    assert main(["info", f"input={stores[1]}"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "dl2 [draft].zarr" in text  # brackets are no markup
    assert "valid 1 of 1 event (100.0%)" in text
    assert "68 % contained" in text
    assert "hillas_* (" in text
    assert "not default nothing" in text


@pytest.mark.parametrize("width", [20, 50, 80, 200])
def test_lines_fit_the_terminal(stores, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    info.run(InfoConfig(input=str(stores[1])))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width


def test_pipe_without_unicode(stores):
    done = subprocess.run(
        [*COMMAND, str(stores[0])],
        capture_output=True,
        timeout=120,
        env={"PATH": "", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert b"15 images  1  ####" in done.stdout


def test_truncated_store_and_model_are_announced(stores, tmp_path, capsys):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(stores[0], copy)
    import zarr

    zarr.open_group(copy, mode="r+").attrs.update(
        {"truncated": True, "simulation_model": "built-in fast shower model"}
    )
    info.run(InfoConfig(input=str(copy)))
    text = " ".join(capsys.readouterr().out.split())
    assert "ends with its last complete event" in text
    assert "built-in fast shower model" in text


def test_wrong_input_is_a_sentence(tmp_path, capsys):
    with pytest.raises(AstriError, match="no store"):
        info.run(InfoConfig(input=str(tmp_path / "missing.zarr")))
    (tmp_path / "notes.txt").write_text("not a store")
    assert main(["info", str(tmp_path / "notes.txt")]) == 1
    assert "not a store" in capsys.readouterr().err


def test_store_without_instrument_is_a_sentence(tmp_path):
    path = tmp_path / "bare.zarr"
    with create(path, attrs={"data_level": "DL0"}) as writer:
        writer.set_attrs("dl0", {})
    with pytest.raises(AstriError, match="instrument"):
        info.run(InfoConfig(input=str(path)))
