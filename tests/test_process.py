"""The stage `process`: complete outputs, backends that agree, and bad input in one sentence."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from astri_gpu import store_table
from astri_gpu.backend import make_backend
from astri_gpu.config import ProcessConfig, compose
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.kernels.image_types import (
    FLAG_EXCLUDED,
    FLAG_SATURATED,
)
from astri_gpu.schema import TABLES
from astri_gpu.stages import ingest, process, simulate, stereo
from astri_gpu.store import copy_group, create, open_store
from astri_gpu.store_layout import read_layout, write_layout

ARRAY = "history_meta_75.simtel.zst"
MUONS = "gct_checs_muons.simtel.zst"
# One relative tolerance for float32 columns that two backends compute in another order.
ROUNDING = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module")
def stores(shared_data, tmp_path_factory):
    """Return a function from a file name to its DL0 store, made once."""
    folder = tmp_path_factory.mktemp("dl0")

    def get(name):
        path = folder / f"{name}.zarr"
        if not path.exists():
            source = shared_data / "simtel" / name
            ingest.run(compose("ingest", [f"input='{source}'", f"output='{path}'"]))
        return path

    return get


def config(path, output, *overrides):
    return compose("process", [f"input='{path}'", f"output='{output}'", *overrides])


def changed(stores, tmp_path, change, name=ARRAY):
    """Return a copy of a DL0 store in which `change` has been at work on the Zarr group."""
    import zarr

    copy = tmp_path / "changed.zarr"
    shutil.copytree(stores(name), copy)
    change(zarr.open_group(copy, mode="r+", use_consolidated=False))
    return copy


def test_output_is_complete_without_its_input(stores, tmp_path):
    source = open_store(stores(ARRAY))
    summary = process.run(config(stores(ARRAY), tmp_path / "out.zarr", "backend=cpu"))
    assert "15 images, 1 event (1 with stereo geometry)" in summary.line
    assert "backend cpu" in summary.line
    store = open_store(tmp_path / "out.zarr")
    assert store.attrs["data_level"] == "DL2a"
    for name in ("kind", "obs_id", "source", "n_events", "n_images", "truncated"):
        assert store.attrs[name] == source.attrs[name]
    assert store.attrs["provenance"]["stage"] == "process"
    assert store.attrs["provenance"]["previous"]["stage"] == "ingest"
    assert store.attrs["provenance"]["inputs"][0]["checksum"].startswith("sha256:")
    for group in ("instrument/telescope", "simulation/event", "dl0/event"):
        for column in source.columns(group):
            np.testing.assert_array_equal(
                store.read(f"{group}/{column}"), source.read(f"{group}/{column}")
            )
    for camera in ("LSTCam", "NectarCam"):
        assert "waveform" not in store.columns(f"dl0/image/{camera}")
        columns = set(store.columns(f"dl1/image/{camera}"))
        assert columns == set(TABLES["dl1/image"]) - {"charge", "peak_time", "mask"}
        assert "true_image_sum" in store.columns(f"simulation/image/{camera}")
        n_images = store.n_rows(f"dl0/image/{camera}")
        assert store.n_rows(f"dl2/image/{camera}") == n_images
        for level in ("dl1", "dl2"):
            np.testing.assert_array_equal(
                store.read(f"{level}/image/{camera}/tel_id"),
                store.read(f"dl0/image/{camera}/tel_id"),
            )
    columns = {name for name in TABLES["dl2/event"] if name.startswith("stereo_")}
    assert set(store.columns("dl2/event")) == {"obs_id", "event_id", *columns}
    error = np.hypot(
        store.read("dl2/event/stereo_core_x") - store.read("simulation/event/true_core_x"),
        store.read("dl2/event/stereo_core_y") - store.read("simulation/event/true_core_y"),
    )
    assert error < 50  # m; thresholds made for ASTRI on LST and MST images, so not at its best


# The usual options on many cameras are compared in test_against_ctapipe, on every backend.
@pytest.mark.parametrize(
    ("name", "options"),
    [(ARRAY, ("stereo=lines", "cleaning=time_constrained")), (MUONS, ())],
)
def test_backends_agree(name, options, stores, tmp_path):
    results = {}
    for backend in ("numpy", "cpu", "jax"):
        output = tmp_path / f"{backend}.zarr"
        process.run(config(stores(name), output, f"backend={backend}", "images=true", *options))
        results[backend] = open_store(output)
    reference = results.pop("numpy")
    for store in results.values():
        for camera in reference.cameras("dl1"):
            path = f"dl1/image/{camera}"
            np.testing.assert_array_equal(
                store.read(f"{path}/mask"), reference.read(f"{path}/mask")
            )
            for column in reference.columns(path):
                np.testing.assert_allclose(
                    store.read(f"{path}/{column}"),
                    reference.read(f"{path}/{column}"),
                    err_msg=f"{path}/{column}",
                    **ROUNDING,
                )
        for column in reference.columns("dl2/event"):
            np.testing.assert_allclose(
                store.read(f"dl2/event/{column}"),
                reference.read(f"dl2/event/{column}"),
                rtol=1e-6,
                atol=1e-2 if "core" in column or "h_max" in column else 1e-4,
                err_msg=column,
            )


@pytest.fixture(scope="module")
def gammas(tmp_path_factory):
    """Return a simulated DL0 store of some hundred images."""
    path = tmp_path_factory.mktemp("gammas") / "dl0.zarr"
    words = ["shower=draft", "view=on_axis", "n_showers=200", "n_uses=3", "progress=false"]
    simulate.run(
        compose("simulate", [*words, "spectrum.energy_min_tev=20", f"output='{path}'", "seed=11"])
    )
    return path


def two_cameras(source, path):
    """Write a store again, with the images of every other telescope under another camera."""
    store = open_store(source)
    layout = read_layout(store)
    camera = layout.cameras[0]
    cameras = (camera, replace(camera, geometry=replace(camera.geometry, name="Other")))
    index = np.arange(layout.n_telescopes) % 2
    tables = ("dl0/image/{}", "simulation/image/{}", "monitoring/camera/{}")
    with create(path, attrs=store.attrs) as writer:
        write_layout(writer, replace(layout, cameras=cameras, camera_index=index))
        copy_group(store, writer, "dl0/event")
        copy_group(store, writer, "simulation/event")
        for k, camera in enumerate(cameras):
            for table in tables:
                old = store.read_table(table.format(cameras[0].name))
                rows = np.isin(old["tel_id"], layout.tel_id[index == k])
                new = writer.table(
                    table.format(camera.name),
                    list(old),
                    sizes={"gain": 2, "pixel": camera.geometry.n_pixels},
                )
                if "calibration_index" in old:
                    number = np.cumsum(index == k) - 1
                    old["calibration_index"] = number[old["calibration_index"]].astype("i4")
                new.append({name: values[rows] for name, values in old.items()})


def test_events_with_images_of_two_cameras(gammas, tmp_path):
    two_cameras(gammas, tmp_path / "two.zarr")
    process.run(config(gammas, tmp_path / "one_out.zarr", "backend=cpu"))
    process.run(config(tmp_path / "two.zarr", tmp_path / "two_out.zarr", "backend=cpu"))
    one, two = open_store(tmp_path / "one_out.zarr"), open_store(tmp_path / "two_out.zarr")
    assert one.read("dl2/event/stereo_is_valid").sum() > 30
    for name in one.columns("dl2/event"):
        # The images of an event come in another order into the sums.
        np.testing.assert_allclose(
            two.read(f"dl2/event/{name}"), one.read(f"dl2/event/{name}"), rtol=1e-9, err_msg=name
        )
    whole = one.read_table("dl2/image/ASTRICam")
    for camera, odd in (("ASTRICam", 0), ("Other", 1)):
        rows = (whole["tel_id"] + 1) % 2 == odd
        assert rows.any()
        for name, values in two.read_table(f"dl2/image/{camera}").items():
            np.testing.assert_allclose(values, whole[name][rows], rtol=1e-6, err_msg=name)


def test_steps_and_chunks_change_nothing(gammas, tmp_path, monkeypatch):
    two_cameras(gammas, tmp_path / "two.zarr")
    for source, name in ((gammas, "one"), (tmp_path / "two.zarr", "two")):
        process.run(config(source, tmp_path / f"{name}_large.zarr", "backend=cpu"))
        with monkeypatch.context() as small:
            small.setattr(stereo, "EVENTS_PER_STEP", 5)
            small.setattr(store_table, "NARROW_CHUNK_ROWS", 16)
            process.run(
                config(source, tmp_path / f"{name}_small.zarr", "backend=cpu", "batch_size=3")
            )
        large, small = (open_store(tmp_path / f"{name}_{size}.zarr") for size in ("large", "small"))
        assert small.array("dl2/event/stereo_alt").chunks == (16,)
        tables = ["dl2/event"]
        for camera in large.cameras("dl1"):
            tables += [f"dl1/image/{camera}", f"dl2/image/{camera}"]
        for table in tables:
            assert large.columns(table) == small.columns(table)
            for column, values in large.read_table(table).items():
                found = small.read(f"{table}/{column}")
                # Sums over events with few images have fewer empty places to add up.
                rtol = 1e-8 if values.dtype.kind == "f" else 0
                np.testing.assert_allclose(found, values, rtol=rtol, err_msg=column)


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("dl0/image/ASTRICam", "event_index", 10**6, "has . rows, but its images refer to rows"),
        ("dl0/image/ASTRICam", "tel_id", 77, "are of telescope 77, which the array does not have"),
        ("dl0/image/ASTRICam", "event_index", 3, "not in the order of their events"),
    ],
)
def test_keys_that_lead_nowhere(table, column, value, message, gammas, tmp_path):
    import zarr

    copy = tmp_path / "changed.zarr"
    shutil.copytree(gammas, copy)
    array = zarr.open_array(copy / table / column, mode="r+")
    array[-1] = value
    with pytest.raises(AstriError, match=message.replace(" . ", " [0-9]+ ")):
        process.run(config(copy, tmp_path / "out.zarr"))
    assert not list(tmp_path.glob("out.zarr*"))


def test_small_batches_change_nothing(stores, tmp_path):
    process.run(config(stores(MUONS), tmp_path / "whole.zarr", "backend=cpu"))
    process.run(config(stores(MUONS), tmp_path / "split.zarr", "backend=cpu", "batch_size=3"))
    whole, split = open_store(tmp_path / "whole.zarr"), open_store(tmp_path / "split.zarr")
    for column in whole.columns("dl1/image/CHEC"):
        path = f"dl1/image/CHEC/{column}"
        np.testing.assert_array_equal(whole.read(path), split.read(path))


def test_jax_compiles_once_for_all_batches(stores, tmp_path, monkeypatch):
    from astri_gpu import backend_arrays
    from astri_gpu.kernels.image_chain import image_chain

    traces = []

    def counted(*arguments, **options):
        traces.append(arguments[0].shape)
        return image_chain(*arguments, **options)

    monkeypatch.setattr(backend_arrays, "image_chain", counted)
    process.run(config(stores(MUONS), tmp_path / "out.zarr", "backend=jax", "batch_size=8"))
    assert traces == [(8, 1, 2048, 128)]  # 20 images: the last batch of 4 is padded


def test_calibration_constants_with_nan_are_left_out(stores, tmp_path):
    def break_pixels(group):
        table = group["monitoring/camera/LSTCam"]
        for name in ("pedestal", "dc_to_pe"):
            values = table[name][...]
            values[:, :, 10:13] = np.nan
            table[name][...] = values

    copy = changed(stores, tmp_path, break_pixels)
    process.run(config(copy, tmp_path / "out.zarr", "backend=cpu", "images=true"))
    charge = open_store(tmp_path / "out.zarr").read("dl1/image/LSTCam/charge")
    assert np.isfinite(charge).all()


def test_dead_telescope_is_named_and_can_be_left_out(stores, tmp_path):
    def kill(group):
        table = group["monitoring/camera/LSTCam"]
        valid = table["pixel_valid"][...]
        valid[table["tel_id"][...] == 2] = False
        table["pixel_valid"][...] = valid

    copy = changed(stores, tmp_path, kill)
    with pytest.raises(AstriError, match=r"telescope 2 \(LSTCam\) has no usable pixel .*=\[2\]"):
        process.run(config(copy, tmp_path / "out.zarr"))
    assert not list(tmp_path.glob("out.zarr*"))
    process.run(config(copy, tmp_path / "out.zarr", "exclude_telescopes=[2]", "experiment=ctapipe"))
    store = open_store(tmp_path / "out.zarr")
    row = np.flatnonzero(store.read("dl1/image/LSTCam/tel_id") == 2)
    assert store.read("dl1/image/LSTCam/image_flags")[row] == [FLAG_EXCLUDED]
    assert np.isnan(store.read("dl1/image/LSTCam/hillas_intensity")[row])


def test_saturated_pixels_are_counted(stores, tmp_path):
    def lower_the_top(group):
        # As if the ADC ended at 60 counts: every bright pixel is then at its end.
        group["instrument/camera/CHEC"].update_attributes({"saturation_adc": 60})

    copy = changed(stores, tmp_path, lower_the_top, MUONS)
    process.run(config(copy, tmp_path / "out.zarr"))
    store = open_store(tmp_path / "out.zarr")
    saturated = store.read("dl1/image/CHEC/n_saturated_pixels")
    flags = store.read("dl1/image/CHEC/image_flags")
    assert (saturated > 0).any()
    np.testing.assert_array_equal(flags & FLAG_SATURATED != 0, saturated > 0)


def test_camera_without_calibration(stores, tmp_path):
    copy = changed(stores, tmp_path, lambda group: group.__delitem__("monitoring/camera/LSTCam"))
    with pytest.raises(AstriError, match="images of LSTCam but no calibration of it"):
        process.run(config(copy, tmp_path / "out.zarr"))


def test_damaged_counts(stores, tmp_path):
    copy = tmp_path / "damaged.zarr"
    shutil.copytree(stores(MUONS), copy)
    shard = max((copy / "dl0/image/CHEC/waveform").rglob("*"), key=lambda f: f.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[100:4000] = os.urandom(3900)
    shard.write_bytes(bytes(data))
    with pytest.raises(AstriError, match=r"dl0/image/CHEC/waveform .* the store is damaged"):
        process.run(config(copy, tmp_path / "out.zarr"))
    assert not list(tmp_path.glob("out.zarr*"))


def test_what_is_no_dl0_store(stores, tmp_path):
    process.run(config(stores(MUONS), tmp_path / "dl2.zarr"))
    with pytest.raises(AstriError, match="is a DL2a store, and process starts from ADC counts"):
        process.run(config(tmp_path / "dl2.zarr", tmp_path / "out.zarr"))
    with pytest.raises(UsageError, match="No file matches the input"):
        process.run(config(tmp_path / "nothing.zarr", tmp_path / "out.zarr"))


def test_existing_output(stores, tmp_path):
    process.run(config(stores(MUONS), tmp_path / "out.zarr"))
    assert process.run(config(stores(MUONS), tmp_path / "out.zarr")).n_before == 1
    with pytest.raises(UsageError, match=r"made with other options \(stereo.method planes → lines"):
        process.run(config(stores(MUONS), tmp_path / "out.zarr", "stereo=lines"))
    process.run(config(stores(MUONS), tmp_path / "out.zarr", "overwrite=true", "stereo=lines"))
    assert open_store(tmp_path / "out.zarr").attrs["config"]["stereo"]["method"] == "lines"


def test_several_stores_resume_and_skip(stores, tmp_path):
    folder = tmp_path / "dl0"
    folder.mkdir()
    for name, source in (("a", MUONS), ("b", ARRAY)):
        shutil.copytree(stores(source), folder / f"{name}.zarr")
    (folder / "c.zarr").mkdir()  # not a store
    pattern = folder / "*.zarr"
    with pytest.raises(PartialFailure, match="1 of 3 inputs failed"):
        process.run(config(pattern, tmp_path / "dl2", "on_error=skip", "execution.n_workers=2"))
    assert sorted(os.listdir(tmp_path / "dl2")) == ["a.zarr", "b.zarr"]
    shutil.rmtree(folder / "c.zarr")
    shutil.rmtree(tmp_path / "dl2" / "b.zarr")
    summary = process.run(config(pattern, tmp_path / "dl2"))
    assert (summary.n_done, summary.n_before) == (1, 1)


def test_killed_run_leaves_the_input_alone_and_is_repeated(stores, tmp_path):
    copy, output = tmp_path / "dl0.zarr", tmp_path / "out.zarr"
    shutil.copytree(stores(MUONS), copy)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    command = [sys.executable, "-m", "astri_gpu.cli", "process", str(copy), f"output={output}"]
    with subprocess.Popen([*command, "batch_size=1", "backend=numpy"]) as killed:
        while not list(tmp_path.glob("out.zarr.partial/dl1")) and killed.poll() is None:
            time.sleep(0.01)
        killed.kill()
    assert not output.exists()
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    process.run(config(copy, output))
    assert open_store(output).n_rows("dl1/image/CHEC") == 20
    assert not list(tmp_path.glob("out.zarr.*"))


def test_full_disk(stores, tmp_path):
    code = (
        "import resource, sys\n"
        "from astri_gpu.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    output = tmp_path / "out.zarr"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "process",
            str(stores(MUONS)),
            f"output={output}",
            "images=true",
            "backend=numpy",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "The disk holding" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out.zarr*"))


def test_gpu_backend_without_a_gpu():
    try:
        import cupy

        n_devices = cupy.cuda.runtime.getDeviceCount()
    except Exception:  # neither library nor driver: what this test is about
        n_devices = 0
    if n_devices:
        pytest.skip("this machine has a GPU")
    with pytest.raises(AstriError, match=r"backend=cupy needs an NVIDIA GPU .* backend=cpu\.$"):
        make_backend("cupy")
    assert make_backend("auto").name == "cpu"


def test_configuration_from_python(stores, tmp_path):
    made = ProcessConfig(input=str(stores(MUONS)), output=str(tmp_path / "out.zarr"))
    assert process.run(made).n_images == 20
