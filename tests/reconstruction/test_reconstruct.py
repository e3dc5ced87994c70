"""`astri-gpu reconstruct`: what is copied, what is added, what is refused, and what is left."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from astri_gpu.cli import main
from astri_gpu.config import compose
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.reconstruction.apply import EVENT_COLUMNS, TELESCOPE_COLUMNS
from astri_gpu.reconstruction.model_file import save_models
from astri_gpu.reconstruction.models import CameraModels, ModelSet, SpreadCalibration, TaskModel
from astri_gpu.schema import column
from astri_gpu.stages import reconstruct
from astri_gpu.store import copy_group, create, fingerprint, open_store

CAMERA = "ASTRICam"
TABLES = {"dl2/event": EVENT_COLUMNS, f"dl2/image/{CAMERA}": TELESCOPE_COLUMNS}
FEATURES = ("log10(hillas_intensity)", "hillas_width")
WIDTHS = ("mean_log_energy", "disp_spread")


def quick(task, features, low, high, kind=RandomForestRegressor):
    """Return a forest of a few trees that says something between `low` and `high`."""
    rng = np.random.default_rng(1)
    rows = rng.uniform([1.0, 0.0], [5.0, 0.3], (300, 2))
    target = rng.uniform(low, high, (300, *np.shape(low)))
    if kind is RandomForestClassifier:
        target = (target > 0.5).astype(int)
    estimator = kind(4, max_depth=5, random_state=1).fit(rows, target)
    calibration = SpreadCalibration(np.array([0.0, 1.0]), np.array([0.1, 0.3]))
    return TaskModel(task, features, estimator, calibration, {features[0]: 0.5})


def quick_models(camera=CAMERA, features=FEATURES):
    image = {
        "energy": quick("energy", features, 0.0, 2.0),
        "disp": quick("disp", features, 0.2, 2.0),
        "sign": quick("sign", features, 0.0, 1.0, RandomForestClassifier),
        "gammaness": quick("gammaness", features, 0.0, 1.0, RandomForestClassifier),
    }
    array = {
        "energy": quick("energy", WIDTHS, 0.0, 2.0),
        "gammaness": quick("gammaness", WIDTHS, 0.0, 1.0, RandomForestClassifier),
        "direction": quick("direction", WIDTHS, [-1.5, -1.5], [0.0, 0.0]),
        "quality": quick("quality", WIDTHS, [-1.5, -1.5], [0.0, 0.0]),
    }
    return ModelSet(
        cameras={camera: CameraModels(image, {"energy": image["energy"]})},
        array=array,
        filter="hillas_intensity > 80",
        disp="norm_sign",
        quality_energy=np.array([0.1, 10.0, 1000.0]),
        quality_error=np.array([[0.1, 0.2, 0.4], [0.1, 0.15, 0.2]]),
        meta={"trained_on": "nothing"},
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "quick.skops"
    save_models(path, quick_models())
    return path


def config(path, output, model, *words):
    paths = [str(path)] if not isinstance(path, list) else [str(item) for item in path]
    return compose(
        "reconstruct",
        [
            f"input={json.dumps(paths)}",
            f"output='{output}'",
            f"model='{model}'",
            "progress=false",
            "backend=cpu",
            *words,
        ],
    )


@pytest.fixture(scope="module")
def done(gamma_store, model, tmp_path_factory):
    """Return the summary and the output of one run."""
    output = tmp_path_factory.mktemp("dl2b") / "out.zarr"
    before = fingerprint(gamma_store.path)
    summary = reconstruct.run(config(gamma_store.path, output, model))
    assert fingerprint(gamma_store.path) == before
    return summary, open_store(output)


def arrays(folder):
    """Return the bytes of every chunk and the metadata of every array below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name != "zarr.json" or b'"array"' in path.read_bytes()[:400])
    }


def test_everything_of_the_input_is_there_byte_for_byte(done, gamma_store):
    _, store = done
    before, after = arrays(gamma_store.path), arrays(store.path)
    assert before.items() <= after.items()
    added = {name.split("/c/")[0].removesuffix("/zarr.json") for name in after.keys() - before}
    assert added == {f"{table}/{name}" for table, names in TABLES.items() for name in names}


def test_new_columns_are_those_of_the_schema(done, gamma_store):
    summary, store = done
    n_images = gamma_store.n_rows(f"dl1/image/{CAMERA}")
    assert (summary.n_done, summary.n_images) == (1, n_images)
    for table, names in TABLES.items():
        for name in names:
            array, entry = store.array(f"{table}/{name}"), column(table, name)
            assert array.dtype == np.dtype(entry.dtype)
            assert array.attrs["units"] == entry.unit
            assert (
                array.shape
                == gamma_store.array(
                    f"{table}/event_index" if "image" in table else f"{table}/event_id"
                ).shape
            )
    events = store.read_table("dl2/event", EVENT_COLUMNS)
    valid = events["reco_is_valid"]
    assert summary.n_valid == valid.sum() > 0
    assert f"({summary.n_valid} reconstructed)" in summary.line
    numbers = [name for name in EVENT_COLUMNS if events[name].dtype.kind == "f"]
    for name in numbers:
        assert np.isfinite(events[name][valid]).all()
    assert (~valid).any()
    assert not events["event_quality"][~valid].any()
    assert set(np.unique(events["event_quality"][valid])) <= {1, 2, 3, 4}
    images = store.read_table(f"dl2/image/{CAMERA}")
    counted = np.bincount(images["event_index"][images["tel_is_valid"]], minlength=len(valid))
    np.testing.assert_array_equal(events["reco_n_tels"], counted)
    np.testing.assert_array_equal(valid, counted > 0)


def test_provenance_and_models_are_told(done, gamma_store, model):
    _, store = done
    attrs = store.attrs
    assert attrs["data_level"] == "DL2b"
    assert attrs["kind"] == gamma_store.attrs["kind"]
    record = attrs["provenance"]
    assert record["stage"] == "reconstruct"
    assert record["previous"]["stage"] == "process"
    assert [entry["path"] for entry in record["inputs"]] == [str(gamma_store.path), str(model)]
    assert attrs["models"]["checksum"] == record["inputs"][1]["checksum"] == fingerprint(model)
    told = attrs["models"]["cameras"][CAMERA]["image"]["energy"]
    assert told["features"] == list(FEATURES)
    assert told["importances"] == {FEATURES[0]: 0.5}
    assert attrs["models"]["training"]["trained_on"] == "nothing"
    assert set(attrs["models"]["array"]) == {"energy", "gammaness", "direction", "quality"}


def test_other_readers_open_it(done):
    _, store = done
    xarray = pytest.importorskip("xarray")
    with xarray.open_datatree(store.path, engine="zarr") as tree:
        assert tree["dl2/event"]["reco_energy"].attrs["units"] == "TeV"
        assert tree["dl2/event"]["reco_energy"].dims == ("event",)
    root = zarr.open_group(store.path, mode="r")
    assert root[f"dl2/image/{CAMERA}/tel_energy"].shape[0] == store.n_rows("dl1/image/" + CAMERA)


def test_backends_agree(done, gamma_store, model, tmp_path):
    _, store = done
    output = tmp_path / "numpy.zarr"
    reconstruct.run(config(gamma_store.path, output, model, "backend=numpy"))
    other = open_store(output)
    for table, names in TABLES.items():
        for name in names:
            np.testing.assert_allclose(
                other.read(f"{table}/{name}"), store.read(f"{table}/{name}"), rtol=1e-5
            )


def test_done_before_and_again(done, gamma_store, model, tmp_path):
    _, store = done
    assert reconstruct.run(config(gamma_store.path, store.path, model)).n_before == 1
    # A reconstructed store may be the input: its old columns are replaced.
    output = tmp_path / "again.zarr"
    reconstruct.run(config(store.path, output, model))
    again = open_store(output)
    assert again.attrs["provenance"]["previous"]["stage"] == "reconstruct"
    np.testing.assert_array_equal(
        again.read("dl2/event/reco_energy"), store.read("dl2/event/reco_energy")
    )


def test_other_models_do_not_count_as_done(gamma_store, model, tmp_path):
    output, own = tmp_path / "out.zarr", tmp_path / "own.skops"
    shutil.copyfile(model, own)
    reconstruct.run(config(gamma_store.path, output, own))
    before = fingerprint(output)
    with pytest.raises(UsageError, match=r"options \(model .*own.skops → .*quick.skops\)"):
        reconstruct.run(config(gamma_store.path, output, model))
    status = own.stat()
    os.utime(own, (status.st_atime + 100, status.st_mtime + 100))  # touched, and the same
    assert reconstruct.run(config(gamma_store.path, output, own)).n_before == 1
    save_models(own, replace(quick_models(), filter=""), overwrite=True)
    os.utime(own, (status.st_atime + 100, status.st_mtime + 100))
    with pytest.raises(UsageError, match=r"another own.skops, or .* has changed since"):
        reconstruct.run(config(gamma_store.path, output, own))
    assert fingerprint(output) == before
    words = ["overwrite=true"]
    assert reconstruct.run(config(gamma_store.path, output, own, *words)).n_done == 1
    assert open_store(output).attrs["models"]["filter"] == ""


def test_several_stores(gamma_store, proton_store, model, tmp_path):
    folder = tmp_path / "dl2"
    folder.mkdir()
    for name, store in (("a", gamma_store), ("b", proton_store)):
        shutil.copytree(store.path, folder / f"{name}.zarr")
    (folder / "c.zarr").mkdir()
    paths = sorted(folder.iterdir())
    with pytest.raises(PartialFailure, match="1 of 3 inputs failed"):
        reconstruct.run(config(paths, tmp_path / "out", model, "on_error=skip"))
    assert sorted(os.listdir(tmp_path / "out")) == ["a.zarr", "b.zarr"]
    assert open_store(tmp_path / "out" / "b.zarr").attrs["kind"] == "proton"


def test_a_store_without_events(gamma_store, model, tmp_path):
    empty = tmp_path / "empty.zarr"
    with create(empty, attrs=gamma_store.attrs | {"n_images": 0, "n_events": 0}) as writer:
        copy_group(gamma_store, writer, "instrument")
        for level in ("dl0", "dl1", "dl2"):
            for name in (f"{level}/event", f"{level}/image/{CAMERA}"):
                if name in gamma_store:
                    rows = gamma_store.read_table(name, stop=0)
                    rows = {column: values for column, values in rows.items() if values.ndim == 1}
                    writer.table(name, list(rows), sizes={}).append(rows)
    summary = reconstruct.run(config(empty, tmp_path / "out.zarr", model))
    assert (summary.n_done, summary.n_images, summary.n_valid) == (1, 0, 0)
    assert open_store(tmp_path / "out.zarr").n_rows("dl2/event") == 0


def refused(match, path, model, tmp_path, kind=AstriError):
    """Check that a run ends with a sentence and leaves nothing."""
    output = tmp_path / "refused.zarr"
    with pytest.raises(kind, match=match) as caught:
        reconstruct.run(config(path, output, model))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("refused.zarr*"))


def test_a_store_that_is_not_processed(gamma_store, model, tmp_path):
    raw = gamma_store.attrs["provenance"]["inputs"][0]["path"]
    refused(r"is a DL0 store without .* run `astri-gpu process` first", raw, model, tmp_path)


def test_models_that_do_not_fit(gamma_store, tmp_path):
    other = tmp_path / "other.skops"
    save_models(other, quick_models(camera="CHEC"))
    refused(
        "images of CHEC, and the store .* has images of ASTRICam", gamma_store.path, other, tmp_path
    )
    lacking = tmp_path / "lacking.skops"
    save_models(lacking, quick_models(features=("hillas_intensity", "stereo_disp_along")))
    store = tmp_path / "store.zarr"
    shutil.copytree(gamma_store.path, store)
    shutil.rmtree(store / f"dl1/image/{CAMERA}/hillas_width")
    missing = tmp_path / "missing.skops"
    save_models(missing, quick_models())
    refused("hillas_width", store, missing, tmp_path)


def test_models_that_are_none(gamma_store, model, tmp_path):
    refused(
        r"There is no file of models .*nowhere\.skops",
        gamma_store.path,
        tmp_path / "nowhere.skops",
        tmp_path,
    )
    half = tmp_path / "half.skops"
    half.write_bytes(model.read_bytes()[:2000])
    refused("half.skops", gamma_store.path, half, tmp_path)
    pickle = tmp_path / "pickle.skops"
    pickle.write_bytes(b"\x80\x04K\x01.")
    refused("pickle", gamma_store.path, pickle, tmp_path)


def test_a_damaged_store(gamma_store, model, tmp_path):
    store = tmp_path / "store.zarr"
    shutil.copytree(gamma_store.path, store)
    (chunk,) = (store / f"dl1/image/{CAMERA}/hillas_width/c").iterdir()
    chunk.unlink()
    refused("hillas_width", store, model, tmp_path)


def test_an_output_that_exists(done, gamma_store, proton_store, model):
    _, store = done
    before = fingerprint(store.path)
    with pytest.raises(UsageError, match=r"made by reconstruct from gamma\.zarr"):
        reconstruct.run(config(proton_store.path, store.path, model))
    with pytest.raises(UsageError, match="is the input, which is never changed"):
        reconstruct.run(config(store.path, store.path, model, "overwrite=true"))
    assert fingerprint(store.path) == before


def test_command_line(gamma_store, model, tmp_path, capsys):
    output = tmp_path / "out.zarr"
    words = [str(gamma_store.path), f"model={model}", f"output={output}", "progress=false"]
    assert main(["reconstruct", *words, "backend=cpu"]) == 0
    assert "reconstruct: 1 store, " in capsys.readouterr().out
    assert main(["reconstruct", *words, "model=missing.skops"]) == 1
