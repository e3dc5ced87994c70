"""Files of models: what goes in comes out, and nothing else ever comes out."""

import io
import json
import pickle
import zipfile

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestRegressor,
)

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.reconstruction import model_file
from astri_gpu.reconstruction.model_file import (
    DESCRIPTION,
    check_store,
    describe_models,
    load_models,
    save_models,
)
from astri_gpu.reconstruction.models import (
    CameraModels,
    ModelSet,
    SpreadCalibration,
    TaskModel,
)
from astri_gpu.reconstruction.tree_check import check_trees

FEATURES = ("hillas_width", "log10(hillas_intensity)")
ROWS = np.random.default_rng(0).random((200, 2)).astype(np.float32)


def _models(estimator=None, features=FEATURES, camera="ASTRICam"):
    target = ROWS[:, 0] > 0.5
    calibration = SpreadCalibration(np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    image = {
        "energy": TaskModel(
            "energy",
            features,
            estimator or RandomForestRegressor(3, max_depth=3).fit(ROWS, ROWS),
            calibration,
            {features[0]: 0.5},
        ),
        "gammaness": TaskModel(
            "gammaness", FEATURES, HistGradientBoostingClassifier(max_iter=3).fit(ROWS, target)
        ),
    }
    array = {
        "gammaness": TaskModel(
            "gammaness", ("n_images", "mean_gammaness"), ExtraTreesClassifier(3).fit(ROWS, target)
        )
    }
    return ModelSet(
        cameras={camera: CameraModels(image, {})},
        array=array,
        filter="hillas_intensity > 50",
        disp="norm_sign",
        quality_energy=np.array([0.1, 1.0]),
        quality_error=np.array([[0.1, 0.2, 0.3]]),
        meta={"scores": {"auc": 0.9}, "none": float("nan")},
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "models.skops"
    save_models(path, _models())
    return path


def _changed(file, name, change):
    """Write the file again with one member changed, or left out."""
    with zipfile.ZipFile(file) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(file, "w") as archive:
        for item, content in members.items():
            if content is not None:
                archive.writestr(item, content)


def _described(file, **values):
    _changed(file, DESCRIPTION, lambda old: json.dumps(json.loads(old) | values).encode())


def test_models_come_back_as_they_were(file):
    models, found = _models(), load_models(file)
    for variant in ("image", "stereo"):
        here, there = (getattr(item.cameras["ASTRICam"], variant) for item in (models, found))
        assert here.keys() == there.keys()
    energy = found.cameras["ASTRICam"].image["energy"]
    assert energy.features == FEATURES
    assert energy.importances == {"hillas_width": 0.5}
    np.testing.assert_array_equal(energy.calibration([0.1, 0.15, 9]), [0.3, 0.35, 0.4])
    assert found.array["gammaness"].calibration is None
    assert (found.filter, found.disp) == (models.filter, models.disp)
    np.testing.assert_array_equal(found.quality_energy, models.quality_energy)
    np.testing.assert_array_equal(found.quality_error, models.quality_error)
    assert found.meta["scores"] == {"auc": 0.9}
    before = _models(energy.estimator)
    save_models(file, before, overwrite=True)
    again = load_models(file).cameras["ASTRICam"].image["energy"].estimator
    np.testing.assert_array_equal(again.predict(ROWS), energy.estimator.predict(ROWS))


def test_the_description_is_read_without_the_forests(file, monkeypatch):
    monkeypatch.setattr(skops.io, "load", None)
    found = describe_models(file)
    assert found["cameras"]["ASTRICam"]["image"]["energy"] == list(FEATURES)
    assert found["array"] == {"gammaness": ["n_images", "mean_gammaness"]}
    assert found["versions"].keys() == {"astri_gpu", "scikit-learn", "numpy", "skops"}
    assert found["none"] is None or found["none"] != found["none"]


def test_an_existing_file_stays(file, monkeypatch):
    before = file.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        save_models(file, _models())

    def full(models):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_file, "_description", full)  # after the forests are written
    with pytest.raises(AstriError, match=r"disk is full|No space"):
        save_models(file, _models(), overwrite=True)
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


class _Program:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_are_refused_unopened(tmp_path, protocol):
    trace, path = tmp_path / "trace", tmp_path / "models.skops"
    path.write_bytes(pickle.dumps(_Program(trace), protocol))
    with pytest.raises(AstriError, match="looks like a pickle or a joblib file"):
        load_models(path)
    assert not trace.exists()


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3)])
def test_files_of_joblib_are_refused_unopened(tmp_path, compress):
    path = tmp_path / "models.joblib"
    joblib.dump({"model": np.arange(3)}, path, compress=compress)
    with pytest.raises(AstriError, match="looks like a pickle or a joblib file"):
        load_models(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "models.skops"
    with pytest.raises(AstriError, match="There is no file of models"):
        load_models(path)
    for content, text in ((b"", "is empty"), (b"SIMPLE  =", "is no file of models")):
        path.write_bytes(content)
        with pytest.raises(AstriError, match=text):
            load_models(path)
    skops.io.dump({"model": 1}, path)  # of somebody else
    with pytest.raises(AstriError, match=f"it has no {DESCRIPTION}"):
        load_models(path)
    with pytest.raises(AstriError, match="cannot be read"):
        load_models(tmp_path)


def test_a_file_that_was_cut_off_is_refused_wherever_it_ends(file):
    whole = file.read_bytes()
    for length in range(4, len(whole), len(whole) // 40):
        file.write_bytes(whole[:length])
        with pytest.raises(AstriError, match=r"damaged or cut off|is no file"):
            load_models(file)


def test_flipped_bytes_give_a_sentence_or_the_models(file):
    whole = file.read_bytes()
    rng = np.random.default_rng(4)
    refused = []
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        file.write_bytes(damaged)
        try:
            load_models(file)
        except AstriError as error:
            refused.append(str(error))
    assert len(refused) > 30
    assert all(str(file) in text and "\n" not in text for text in refused)


def test_types_that_are_no_part_of_a_forest_are_refused_by_name(file):
    program = skops.io.dumps({"cameras": io.StringIO})
    with zipfile.ZipFile(io.BytesIO(program)) as archive:
        schema = archive.read("schema.json")
    _changed(file, "schema.json", lambda _: schema)
    with pytest.raises(AstriError, match=r"no part of a forest.*StringIO"):
        load_models(file)


def test_other_versions_are_refused(file, caplog):
    versions = describe_models(file)["versions"]
    _described(file, versions=versions | {"scikit-learn": "0.24.1"})
    with pytest.raises(AstriError, match=r"written with scikit-learn 0.24.1, and 1"):
        load_models(file)
    _described(file, versions=versions | {"scikit-learn": "1.0.0"})
    load_models(file)
    assert "1.0.0" in caplog.text
    _described(file, format=99)
    with pytest.raises(AstriError, match="has format 99, this package reads format 1"):
        load_models(file)
    _changed(file, DESCRIPTION, lambda _: b"[1, 2]")
    with pytest.raises(AstriError, match="has format None"):
        load_models(file)


def test_an_impossible_description_is_not_read(file, monkeypatch):
    monkeypatch.setattr(model_file, "LARGEST_DESCRIPTION", 10)
    with pytest.raises(AstriError, match="impossible size"):
        describe_models(file)


def test_features_have_to_be_those_of_the_forest(file):
    save_models(file, _models(features=("hillas_width",)), overwrite=True)
    with pytest.raises(AstriError, match="a forest of 2 features has names of 1"):
        load_models(file)


def _twisted(tree, **changes):
    """Return a state of a tree of scikit-learn with other nodes."""
    state = tree.__getstate__()
    for name, (node, value) in changes.items():
        state["nodes"][name][node] = value
    tree.__setstate__(state)


@pytest.mark.parametrize(
    "changes",
    [
        {"left_child": (0, 10**6)},
        {"right_child": (0, -7)},
        {"left_child": (1, 0)},  # a circle
        {"right_child": (0, 1)},  # two parents
        {"feature": (0, 5)},
        {"feature": (0, -3)},
    ],
)
def test_nodes_that_form_no_tree_are_refused(file, changes):
    """A file that somebody made up would have scikit-learn read any memory."""
    forest = RandomForestRegressor(2, max_depth=3, random_state=0).fit(ROWS, ROWS[:, 0])
    check_trees(forest, 2)
    _twisted(forest.estimators_[1].tree_, **changes)
    save_models(file, _models(forest), overwrite=True)
    with pytest.raises(AstriError, match="the nodes of tree 1 of a RandomForestRegressor form no"):
        load_models(file)


def test_boosted_nodes_are_looked_at_too(file):
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(ROWS, ROWS[:, 0] > 0.5)
    check_trees(boosted, 2)
    boosted._predictors[1][0].nodes["right"][0] = 12345
    with pytest.raises(ValueError, match="tree 1 of a HistGradientBoostingClassifier"):
        check_trees(boosted, 2)


def test_stores_that_do_not_fit_are_refused(gamma_store):
    check_store(_models(), gamma_store)
    with pytest.raises(AstriError, match=r"are for images of LSTCam, and the store .* of ASTRICam"):
        check_store(_models(camera="LSTCam"), gamma_store)
    with pytest.raises(AstriError, match="hillas_breadth"):
        check_store(_models(features=("hillas_breadth", "hillas_width")), gamma_store)
