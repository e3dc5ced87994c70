"""From a store to ctapipe's file and back, through ctapipe itself, and on from the charges."""

import shutil
import warnings

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.kernels.image_types import COLUMNS, COUNT_COLUMNS, FLAG_EMPTY, FLAG_SATURATED
from astri_gpu.stages import ingest, process
from astri_gpu.store import open_store

CAMERA = "ASTRICam"
# What ctapipe's file has no place for.
LOST = {
    "instrument/camera": {"module", "pix_z"},
    "dl0/image": {"calibration_index", "trigger_type"},
    "dl1/image": {name for name in COLUMNS if name.startswith("astri_")} | {"n_saturated_pixels"},
    "simulation/event": {"shower_id"},
}


def ingested(path, output):
    ingest.run(compose("ingest", [f"input='{path}'", f"output='{output}'", "progress=false"]))
    return open_store(output)


def processed(path, output, *options):
    arguments = [f"input='{path}'", f"output='{output}'", "progress=false", *options]
    process.run(compose("process", arguments))
    return open_store(output)


def rows_of(store, path):
    """Return all columns of a table without calibration events, which ctapipe cannot number."""
    columns = store.read_table(path)
    event_id = store.read("dl0/event/event_id")
    if "event_index" in columns:
        kept = event_id[columns["event_index"]] >= 0
        columns["event_index"] = (np.cumsum(event_id >= 0) - 1)[columns["event_index"]]
    elif "event_id" in columns:
        kept = columns["event_id"] >= 0
    else:
        return columns
    return {name: values[kept] for name, values in columns.items()}


@pytest.fixture(scope="module")
def back(exported, tmp_path_factory):
    """Return the stores that were made of the exported files, by name."""
    folder = tmp_path_factory.mktemp("back")
    return {
        name: ingested(made.file, folder / f"{name}.zarr")
        for name, made in exported.items()
        if name != "proton"
    }


@pytest.mark.parametrize("name", ["gamma", "bare"])
def test_everything_that_has_a_place_comes_back(name, exported, back):
    store, found = open_store(exported[name].dl2), back[name]
    assert found.attrs["data_level"] == "DL2a"
    for key in ("kind", "obs_id", "simulation_model"):
        assert found.attrs[key] == store.attrs[key]
    n_compared = 0
    for group in (
        "instrument/telescope",
        f"instrument/camera/{CAMERA}",
        "dl0/event",
        f"dl0/image/{CAMERA}",
        f"dl1/image/{CAMERA}",
        "dl2/event",
        f"dl2/image/{CAMERA}",
        "simulation/event",
        f"simulation/image/{CAMERA}",
        "simulation/thrown",
    ):
        lost = LOST.get(group.removesuffix(f"/{CAMERA}"), set())
        want, got = rows_of(store, group), rows_of(found, group)
        assert set(got) <= set(want) | lost
        assert set(want) - set(got) <= lost, group
        for column in set(want) - lost:
            if column == "trigger_time_ns":  # the file counts quarter nanoseconds
                np.testing.assert_allclose(got[column], want[column], rtol=0, atol=0.13)
                continue
            if column == "image_flags":  # which counts were saturated, and what cleaning left
                lost_bits = FLAG_SATURATED | (0 if "mask" in want else FLAG_EMPTY)
                want[column] = want[column] & ~np.uint32(lost_bits)
                got[column] = got[column] & ~np.uint32(lost_bits)
            if column == "stereo_n_tels":  # the file has no telescopes of failed events
                valid = want["stereo_is_valid"]
                got[column], want[column] = got[column][valid], want[column][valid]
            np.testing.assert_array_equal(got[column], want[column], err_msg=f"{group}/{column}")
            assert got[column].dtype == want[column].dtype
            n_compared += 1
    assert n_compared > 90
    header, want_header = (each.group_attrs("simulation") for each in (found, store))
    for key in ("energy_range_min", "n_showers", "max_scatter_range", "max_alt", "shower_reuse"):
        assert header[key] == pytest.approx(want_header[key], rel=1e-12), key
    place, want_place = (each.group_attrs("instrument") for each in (found, store))
    for key in ("latitude_deg", "longitude_deg", "altitude_m"):
        assert place[key] == pytest.approx(want_place[key], abs=1e-6)


def test_charges_give_the_parameters_of_the_counts_behind_them(exported, back, tmp_path):
    """The same images from ADC counts, from our charges, and from those that ctapipe's file had."""
    options = ("experiment=ctapipe", "backend=cpu", "images=true")
    want = processed(exported["gamma"].dl0, tmp_path / "counts.zarr", *options)
    for source in (exported["gamma"].dl2, back["gamma"].path):
        found = processed(source, tmp_path / f"{source.stem}_again.zarr", *options)
        assert found.attrs["data_level"] == "DL2a"
        for group in (f"dl1/image/{CAMERA}", "dl2/event", f"dl2/image/{CAMERA}"):
            left, right = rows_of(found, group), rows_of(want, group)
            assert set(left) == set(right)
            for column, values in left.items():
                if column == "n_saturated_pixels":  # charges do not tell
                    assert (values == -1).all()
                    continue
                if column == "image_flags":
                    right[column] = right[column] & ~np.uint32(FLAG_SATURATED)
                np.testing.assert_array_equal(values, right[column], err_msg=column)
    assert np.isfinite(want.read(f"dl1/image/{CAMERA}/hillas_length")).sum() > 20


def test_all_backends_start_from_charges(exported, tmp_path):
    """The first events of the file, because the array text takes its time."""
    part = tmp_path / "part.zarr"
    options = [f"input='{exported['gamma'].file}'", f"output='{part}'", "max_events=8"]
    ingest.run(compose("ingest", [*options, "progress=false"]))
    want = processed(part, tmp_path / "cpu.zarr", "backend=cpu")
    assert np.isfinite(want.read(f"dl1/image/{CAMERA}/hillas_length")).sum() > 20
    for backend in ("numpy", "jax"):
        found = processed(part, tmp_path / f"{backend}.zarr", f"backend={backend}")
        for group in (f"dl1/image/{CAMERA}", "dl2/event", f"dl2/image/{CAMERA}"):
            for column, values in rows_of(found, group).items():
                expected = want.read(f"{group}/{column}")
                np.testing.assert_allclose(
                    values, expected, rtol=2e-5, atol=2e-5, err_msg=f"{backend}: {column}"
                )


def test_another_cleaning_from_charges(exported, back, tmp_path):
    """Images are cleaned again with other thresholds, without the counts."""
    options = ("cleaning=mars", "cleaning.picture_pe=7", "stereo=lines", "backend=cpu")
    want = processed(exported["gamma"].dl0, tmp_path / "counts.zarr", *options)
    found = processed(back["gamma"].path, tmp_path / "charges.zarr", *options)
    for group in (f"dl1/image/{CAMERA}", "dl2/event"):
        left, right = rows_of(found, group), rows_of(want, group)
        for column in set(left) - {"n_saturated_pixels", "image_flags"}:
            np.testing.assert_array_equal(left[column], right[column], err_msg=column)


def test_what_charges_cannot_do(exported, back, tmp_path):
    with pytest.raises(AstriError, match="has charges, but not how much each of them varies"):
        processed(back["gamma"].path, tmp_path / "o.zarr", "cleaning=nsb")
    with pytest.raises(UsageError, match="measures from counts"):
        processed(back["gamma"].path, tmp_path / "o.zarr", "calibration.constants=events")
    with pytest.raises(AstriError, match="is a DL2a store, and process starts from ADC counts or"):
        processed(exported["bare"].dl2, tmp_path / "o.zarr")
    assert not (tmp_path / "o.zarr").exists()


def test_charges_that_are_no_numbers_and_damaged_stores(back, tmp_path):
    import zarr

    path = tmp_path / "changed.zarr"
    shutil.copytree(back["gamma"].path, path)
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    charge = root[f"dl1/image/{CAMERA}/charge"]
    charge[0, :100] = np.nan
    store = processed(path, tmp_path / "o.zarr", "images=true", "backend=cpu")
    assert (store.read(f"dl1/image/{CAMERA}/charge")[0, :100] == 0).all()
    charge.resize((charge.shape[0] - 1, charge.shape[1]))
    with pytest.raises(AstriError, match="it is damaged, make it again"):
        processed(path, tmp_path / "again.zarr")


@pytest.mark.peers
def test_ctapipe_and_ours_from_the_same_file(peers, exported, back, tmp_path):
    """ctapipe-process cleans the exported images, ours the ingested ones: equal parameters."""
    del peers
    from ctapipe.core import run_tool
    from ctapipe.tools.process import ProcessorTool

    output = tmp_path / "ctapipe.h5"
    arguments = [f"--input={exported['gamma'].file}", f"--output={output}", "--quiet"]
    arguments += ["--recompute-dl1", "--recompute-dl2", "--write-parameters", "--write-showers"]
    arguments += ["--HDF5EventSource.focal_length_choice=EQUIVALENT", "--no-progress"]
    arguments += [f"--provenance-log={tmp_path / 'log'}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run_tool(ProcessorTool(), arguments, cwd=tmp_path, raises=True) == 0
    theirs = ingested(output, tmp_path / "theirs.zarr")
    ours = processed(
        back["gamma"].path, tmp_path / "ours.zarr", "experiment=ctapipe", "backend=cpu"
    )
    left, right = (rows_of(store, f"dl1/image/{CAMERA}") for store in (ours, theirs))
    for name in COLUMNS:
        # The camera has no times: ctapipe makes statistics of zeros.
        if name.startswith(("astri_", "timing_", "peak_time_")) or name in LOST["dl1/image"]:
            continue
        if name in COUNT_COLUMNS - {"image_flags"}:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        elif name != "image_flags":
            np.testing.assert_allclose(left[name], right[name], rtol=1e-4, atol=2e-4, err_msg=name)
    left, right = (rows_of(store, "dl2/event") for store in (ours, theirs))
    np.testing.assert_array_equal(left["stereo_is_valid"], right["stereo_is_valid"])
    assert left["stereo_is_valid"].sum() > 10
    for name, atol in (("alt", 1e-5), ("az", 1e-4), ("core_x", 0.01), ("core_y", 0.01)):
        column = f"stereo_{name}"
        np.testing.assert_allclose(left[column], right[column], rtol=0, atol=atol, err_msg=name)


@pytest.mark.peers
def test_merged_runs(peers, exported, tmp_path):
    """Files that ctapipe-merge put together: two observations, whose thrown showers add up."""
    del peers
    from ctapipe.core import run_tool
    from ctapipe.tools.merge import MergeTool

    merged = tmp_path / "merged.h5"
    files = [str(exported[name].file) for name in ("gamma", "proton")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = [*files, f"--output={merged}", "--quiet"]
        arguments += [f"--provenance-log={tmp_path / 'log'}"]
        assert run_tool(MergeTool(), arguments, cwd=tmp_path, raises=True) == 0
    found = ingested(merged, tmp_path / "merged.zarr")
    parts = [open_store(exported[name].dl2) for name in ("gamma", "proton")]
    assert found.attrs["kind"] == "mixed"
    assert found.attrs["obs_id"] is None
    assert found.attrs["obs_ids"] == sorted(part.attrs["obs_id"] for part in parts)
    for group in ("dl0/event", "simulation/event", "dl2/event"):
        want = [rows_of(part, group) for part in parts]
        for column in ("obs_id", "event_id"):
            both = np.concatenate([part[column] for part in want])
            np.testing.assert_array_equal(found.read(f"{group}/{column}"), both)
    charge = np.concatenate([rows_of(part, f"dl1/image/{CAMERA}")["charge"] for part in parts])
    np.testing.assert_array_equal(found.read(f"dl1/image/{CAMERA}/charge"), charge)
    thrown = sum(part.group_attrs("simulation/thrown")["n_entries"] for part in parts)
    assert found.group_attrs("simulation/thrown")["n_entries"] == thrown
    header = found.group_attrs("simulation")
    assert header["n_showers"] == sum(part.group_attrs("simulation")["n_showers"] for part in parts)
    assert len(header["mc_run_headers"]) == 2
