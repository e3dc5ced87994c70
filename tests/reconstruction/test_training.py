"""`astri-gpu train`: what is read, weighted and divided, what comes out, what is refused."""

import json
import shutil

import numpy as np
import pytest

from astri_gpu.backend import make_backend
from astri_gpu.cli import main
from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.reconstruction import samples
from astri_gpu.reconstruction.feature_lists import VARIANTS
from astri_gpu.reconstruction.growing import Grown
from astri_gpu.reconstruction.model_file import describe_models, load_models
from astri_gpu.reconstruction.models import TaskModel
from astri_gpu.reconstruction.predict import ImagePredictor
from astri_gpu.reconstruction.samples import Wanted, read_class
from astri_gpu.reconstruction.train_images import _folded
from astri_gpu.stages import train
from astri_gpu.store import fingerprint, open_store

SMALL = ("forest=draft", "forest.n_trees=4", "sample.n_folds=2", "sample.n_importance=200")
NOTHING = Wanted(frozenset(), frozenset(), "")


def _config(output, stores, *words):
    paths = json.dumps([str(store.path) for store in stores])
    quiet = ("progress=false", "backend=cpu", "backend.threads=1")
    return compose("train", [f"input={paths}", f"output='{output}'", *quiet, *SMALL, *words])


def _sample_config(**values):
    return compose(
        "train", ["input=x", "output=y", *(f"sample.{k}={v}" for k, v in values.items())]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, gamma_store, proton_store):
    output = tmp_path_factory.mktemp("trained") / "models.skops"
    return train.run(_config(output, [gamma_store, proton_store]))


@pytest.fixture
def changed(tmp_path, gamma_store):
    """Return a function that makes a store like the gammas with other attributes."""

    def make(group, **attributes):
        path = tmp_path / "changed.zarr"
        shutil.copytree(gamma_store.path, path)
        file = path / group / "zarr.json"
        entry = json.loads(file.read_text())
        entry["attributes"] |= attributes
        file.write_text(json.dumps(entry))
        return open_store(path)

    return make


def test_all_forests_are_in_the_file(trained, gamma_store, proton_store):
    models = load_models(trained.output)
    camera = models.cameras["ASTRICam"]
    tasks = {"energy", "disp", "sign", "gammaness"}
    assert camera.image.keys() == camera.stereo.keys() == tasks
    assert models.array.keys() == {"energy", "gammaness", "direction", "quality"}
    assert len(models.array["quality"].features) == 11
    assert camera.image["sign"].calibration is None
    for task in tasks - {"sign"}:
        assert np.all(camera.stereo[task].calibration.error > 0)
    n_bins = len(models.quality_energy) - 1
    assert models.quality_error.shape == (n_bins, 3)
    for variant in VARIANTS:
        for model in getattr(camera, variant).values():
            assert model.importances.keys() == set(model.features)
    assert trained.n_forests == 12 * 3
    assert trained.n_stores == 2
    assert "36 forests" in trained.line


def test_the_description_says_what_was_trained_on(trained, gamma_store, proton_store):
    found = describe_models(trained.output)
    inputs = {entry["path"]: entry["checksum"] for entry in found["provenance"]["inputs"]}
    assert inputs == {str(s.path): fingerprint(s.path) for s in (gamma_store, proton_store)}
    assert found["provenance"]["config"]["forest"]["n_trees"] == 4
    for label, store in (("gamma", gamma_store), ("other", proton_store)):
        columns = store.read_table("dl1/image/ASTRICam")
        event = store.read("dl0/event/event_type")[columns["event_index"]]
        passed = (columns["hillas_intensity"] > 50) & (columns["astri_num_island"] < 2)
        passed &= (columns["astri_num_core"] > 2) & (columns["astri_leakage"] < 0.1)
        passed &= (columns["hillas_length"] > 0) & (columns["hillas_width"] > 0) & (event == 32)
        counts = found["counts"][label]
        assert counts["images"] == passed.sum()
        assert counts["images_of_showers"] == np.sum(event == 32)
        assert counts["events"] == len(np.unique(columns["event_index"][passed]))
    scores = found["scores"]["events"]
    assert 0.6 < scores["gammaness"]["all_events"] < 1
    assert scores["direction"]["error_deg"] < 1
    assert scores["quality"]["direction_inside"] == pytest.approx(0.68, abs=0.03)


def test_models_separate_the_classes_and_know_energies(trained, gamma_store, proton_store):
    """On the images they were trained on: that forests and their features go together."""
    models = load_models(trained.output)
    predict = ImagePredictor(
        models.cameras["ASTRICam"], models.filter, models.disp, make_backend("cpu", 1)
    )
    found = []
    for store in (gamma_store, proton_store):
        block = next(samples.read_event_blocks(store, [*predict.names], ["true_energy"]))
        columns = block.images["ASTRICam"]
        made = predict(columns)
        valid = made["tel_is_valid"]
        true = np.log10(block.events["true_energy"][columns["event"]][valid])
        found.append((made["tel_gammaness"][valid].mean(), made["tel_log_energy"][valid], true))
    assert found[0][0] > found[1][0] + 0.2
    assert np.corrcoef(found[0][1], found[0][2])[0, 1] > 0.8


def test_the_same_models_whatever_the_order_of_the_inputs(tmp_path, gamma_store, proton_store):
    words = ("features=astri", "sample.max_images=300", "forest.max_depth=4")
    rows = np.random.default_rng(0).random((50, 6)).astype(np.float32)
    said = []
    for k, stores in enumerate(([gamma_store, proton_store], [proton_store, gamma_store])):
        output = tmp_path / f"{k}.skops"
        assert train.run(_config(output, stores, *words)).n_images <= 600
        models = load_models(output)
        said.append(models.cameras["ASTRICam"].image["energy"].estimator.predict(rows))
    np.testing.assert_array_equal(*said)


@pytest.mark.parametrize(
    "words",
    [
        ("features=astri", "forest.disp=components"),
        ("forest=gradient_boosting", "forest.n_trees=3", "features.stereo_gammaness=[]"),
        (
            "forest=random_forest",
            "forest.n_trees=3",
            "sample.levelling=['log10(hillas_intensity):4:1:5']",
            "sample.target_index=-2.6",
        ),
    ],
    ids=["astri", "boosting", "levelled"],
)
def test_other_ways_to_train(tmp_path, gamma_store, proton_store, words):
    config = _config(tmp_path / "models.skops", [gamma_store, proton_store], *words)
    summary = train.run(config)
    models = load_models(summary.output)
    camera = models.cameras["ASTRICam"]
    assert ("sign" in camera.image) == (config.forest.disp == "norm_sign")
    assert bool(camera.stereo) == bool(config.features.stereo_energy)
    assert ("gammaness" in models.array) == bool(config.features.array_gammaness)
    assert 0.55 < summary.scores["events"]["gammaness"]["all_events"] <= 1
    if config.forest.method == "gradient_boosting":
        names = {task: type(model.estimator).__name__ for task, model in models.array.items()}
        assert names["energy"] == "HistGradientBoostingRegressor"
        assert names["direction"] == "RandomForestRegressor"  # it has two outputs


def test_without_geometry_events_are_means_of_images(
    tmp_path, gamma_store, proton_store, monkeypatch, caplog
):
    read = samples.read_event_blocks

    def without(*args):
        for block in read(*args):
            for columns in (*block.images.values(), block.events):
                columns["stereo_is_valid"] = np.zeros_like(columns["stereo_is_valid"])
            yield block

    monkeypatch.setattr(samples, "read_event_blocks", without)
    models = load_models(
        train.run(_config(tmp_path / "models.skops", [gamma_store, proton_store])).output
    )
    assert models.array == {}
    assert models.cameras["ASTRICam"].stereo == {}
    assert len(models.quality_error) > 0
    assert "Too few gamma events have stereo geometry" in caplog.text


def test_uses_of_a_shower_are_in_one_fold(gamma_store):
    config = _sample_config(n_folds=4)
    sample = read_class("gamma", [gamma_store], NOTHING, config.sample, 1)
    shower = sample.events["shower_id"]
    assert len(np.unique(shower)) < len(shower)  # there are showers with several uses
    for number in np.unique(shower):
        assert len(np.unique(sample.fold[shower == number])) == 1
    assert np.bincount(sample.fold).min() > 0
    for columns in sample.images.values():
        assert np.all(np.diff(columns["event"]) >= 0)
        assert columns["event"].max() < sample.n_events
        source = np.hypot(columns["source_fov_lon"], columns["source_fov_lat"])
        assert np.all(source < 10)


def test_weights_turn_the_thrown_spectrum_into_the_target(gamma_store):
    config = _sample_config(target_index=-2.6)
    sample = read_class("gamma", [gamma_store], NOTHING, config.sample, 1)
    energy = sample.events["true_energy"]
    np.testing.assert_allclose(
        sample.weight * energy ** (2.6 - 1.5), sample.weight[0] * energy[0] ** 1.1
    )


def test_weights_of_two_productions_are_those_of_their_sum(gamma_store, changed):
    """Twice the same showers, said to be thrown with two spectra: densities add."""
    other = changed("simulation", spectral_index=-2.0)
    config = _sample_config(target_index=-2.0)
    sample = read_class("gamma", [gamma_store, other], NOTHING, config.sample, 1)
    energy = np.sort(np.unique(sample.events["true_energy"]))
    weight = np.array([sample.weight[sample.events["true_energy"] == e][0] for e in energy])
    header = gamma_store.group_attrs("simulation")
    low, high = header["energy_range_min"], header["energy_range_max"]
    grid = np.geomspace(low, high, 20_001)
    density = sum(energy**p / np.trapezoid(grid**p, grid) for p in (-1.5, -2.0))
    np.testing.assert_allclose(weight * density * energy**2 / (weight * density * energy**2)[0], 1)


def test_gamma_hadron_forests_alone_have_seen_the_background():
    def item(name):
        folds = tuple(TaskModel(name, (), f"{name} without {k}") for k in range(2))
        return Grown(TaskModel(name, (), f"{name} of all"), folds, None, None)

    grown = {
        "image": {name: item(name) for name in ("energy", "gammaness")},
        "stereo": {"disp": item("disp")},
    }
    gamma, other = (_folded(grown, is_gamma, 2) for is_gamma in (True, False))
    assert gamma[1].image["energy"].estimator == "energy without 1"
    assert gamma[0].stereo["disp"].estimator == "disp without 0"
    assert other[0].image["energy"].estimator == "energy of all"
    assert other[0].stereo["disp"].estimator == "disp of all"
    assert other[1].image["gammaness"].estimator == "gammaness without 1"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("features.filter='hillas_intensity > 1e9'", r"None of the \d+ images of gamma .*1e9"),
        (
            "features.image_disp=['log10(hillas_width - 9)']",
            r"None of the \d+ gamma images .*finite",
        ),
        (
            "features.array_energy=['log10(n_images - 8)']",
            r"too few gamma events with geometry \(\d\) for|None of the \d+ gamma events with geom",
        ),
        ("features.image_energy=[true_energy]", r"features.image_energy.*true_energy"),
        ("features.image_energy=[hillas_widht]", "did you mean 'hillas_width'"),
        ("features.array_direction=[nothing]", r"features.array_direction.*nothing"),
        ("sample.levelling=['hillas_width:3:5:9']", r"sample.levelling leaves 0 images"),
        ("sample.levelling=['tel_log_energy:3:0:1']", r"sample.levelling.*tel_log_energy"),
        ("sample.max_images=1", r"Of the gamma showers 1 are left .*sample.n_folds=2"),
        ("forest.max_features=few", r"forest.max_features is 'few'"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, gamma_store, proton_store, word, text):
    with pytest.raises(AstriError, match=text):
        train.run(_config(tmp_path / "models.skops", [gamma_store, proton_store], word))
    assert not list(tmp_path.iterdir())


def test_one_class_only_is_refused(tmp_path, gamma_store, proton_store, capsys):
    for store, kind, wanted in (
        (gamma_store, "gamma", "particles that are no gammas"),
        (proton_store, "proton", "simulated gammas"),
    ):
        words = [f"input='{store.path}'", f"output='{tmp_path / 'models.skops'}'", *SMALL]
        assert main(["train", *words]) == 1
        text = " ".join(capsys.readouterr().err.split())
        assert f"holds one class only ({kind}): give stores of {wanted}" in text
    assert not list(tmp_path.iterdir())


def test_stores_without_truth_are_refused(tmp_path, changed, proton_store, gamma_store):
    observed = changed("", kind="observation")
    output = tmp_path / "models.skops"
    with pytest.raises(AstriError, match=r"has no truth to train on .*observation events"):
        train.run(_config(output, [observed, proton_store]))
    raw = open_store(gamma_store.path.with_name("dl0.zarr"))
    with pytest.raises(AstriError, match=r"DL0 store without image parameters"):
        train.run(_config(output, [raw, proton_store]))
    assert not output.exists()


def test_spectra_that_are_not_known_are_refused(changed):
    config = _sample_config(target_index=-2.0)
    partial = changed("simulation", partial=True)
    with pytest.raises(AstriError, match=r"holds a part of its production.*target_index=null"):
        read_class("gamma", [partial], NOTHING, config.sample, 1)
    read_class("gamma", [partial], NOTHING, _sample_config(n_folds=2).sample, 1)


def test_a_spectrum_that_nobody_wrote_down_is_refused(changed):
    store = changed("simulation", spectral_index=None)
    with pytest.raises(
        AstriError, match=r"does not say with which spectrum.*spectral_index is None"
    ):
        read_class("gamma", [store], NOTHING, _sample_config(target_index=-2.0).sample, 1)


def test_an_existing_output_is_not_replaced(tmp_path, gamma_store, proton_store):
    output = tmp_path / "models.skops"
    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        train.run(_config(output, [gamma_store, proton_store]))
    words = ("overwrite=true", "features.filter='hillas_intensity > 1e9'")
    with pytest.raises(AstriError, match="1e9"):
        train.run(_config(output, [gamma_store, proton_store], *words))
    assert output.read_bytes() == b"mine"
