"""Forests on blocks of events: against scikit-learn, and with trees that know all answers."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from astri_gpu.backend import make_backend
from astri_gpu.kernels.coordinates import angular_separation
from astri_gpu.kernels.disp import disp_target
from astri_gpu.reconstruction import blocks
from astri_gpu.reconstruction.apply import Reconstructor
from astri_gpu.reconstruction.blocks import read_event_blocks
from astri_gpu.reconstruction.expressions import parse
from astri_gpu.reconstruction.models import CameraModels, ModelSet, SpreadCalibration, TaskModel
from astri_gpu.reconstruction.predict import (
    ArrayPredictor,
    FeatureTable,
    ImagePredictor,
    event_quality,
)

CAMERA = "ASTRICam"
FILTER = "hillas_intensity > 80 and hillas_width > 0"
SHAPE = ("log10(hillas_intensity)", "hillas_width / hillas_length", "hillas_r", "hillas_phi")
STEREO = (*SHAPE, "stereo_h_max")
AXIS = ("hillas_fov_lon", "hillas_fov_lat", "hillas_psi")
SOURCE = ("source_fov_lon", "source_fov_lat")
TRUTH = ("true_energy", "true_alt", "true_az")
MERGED = np.log10([0.01, 0.1])  # expected errors of the two directions, deg
QUALITY = np.log10([0.08, 0.05])  # of the merged direction, deg, and of log10(energy)


@pytest.fixture(scope="module")
def backend():
    return make_backend("cpu", 1)


def read(store, image_names, event_names):
    """Return the columns of all images of the only camera, and those of all events."""
    images, events = [], []
    for block in read_event_blocks(store, sorted(image_names), sorted(event_names)):
        columns = block.images[CAMERA]
        images.append(columns | {"event": columns["event"] + block.first})
        events.append(block.events)
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in (images, events)
    ]


def apply(models, store, backend):
    """Return the columns of all events and of all images."""
    reconstruct = Reconstructor(models, backend)
    found = [
        reconstruct(block)
        for block in read_event_blocks(
            store, sorted(reconstruct.image_names(CAMERA)), sorted(reconstruct.event_names)
        )
    ]
    events, images = [rows for rows, _ in found], [rows[CAMERA] for _, rows in found]
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in (events, images)
    ]


def fit(task, features, rows, target, error=0.1, kind=ExtraTreesRegressor):
    """Return trees that end in single samples: they repeat what they were told."""
    matrix = FeatureTable(rows).matrix(map(parse, features))
    return TaskModel(
        task,
        tuple(features),
        kind(3, random_state=1).fit(matrix, target),
        SpreadCalibration(np.zeros(1), np.full(1, error)),
    )


def image_rows(store, stereo):
    """Return the images with (or without) stereo geometry that pass the filter."""
    names = {name for text in STEREO for name in parse(text).names}
    names |= {*parse(FILTER, condition=True).names, *AXIS, *SOURCE, *TRUTH, "stereo_is_valid"}
    rows, _ = read(store, names, ["stereo_alt"])
    passed = parse(FILTER, condition=True)(rows) & (rows["stereo_is_valid"] == stereo)
    return {name: values[passed] for name, values in rows.items()}


def image_tasks(gammas, protons, features, disp):
    both = {name: np.concatenate([gammas[name], protons[name]]) for name in gammas}
    label = (np.arange(len(both["event"])) < len(gammas["event"])).astype(int)
    along, across = disp_target(*(gammas[name].astype(float) for name in (*AXIS, *SOURCE)))
    tasks = {
        "energy": fit("energy", features, gammas, np.log10(gammas["true_energy"])),
        "gammaness": fit("gammaness", features, both, label, kind=ExtraTreesClassifier),
    }
    if disp == "components":
        return tasks | {"disp": fit("disp", features, gammas, np.stack([along, across], axis=1))}
    side = (along > 0).astype(int)
    return tasks | {
        "disp": fit("disp", features, gammas, np.hypot(along, across)),
        "sign": fit("sign", features, gammas, side, kind=ExtraTreesClassifier),
    }


def make_models(gamma_store, proton_store, backend, disp):
    """Return models of both stores that know them by heart."""
    variants = {
        name: image_tasks(
            image_rows(gamma_store, stereo), image_rows(proton_store, stereo), features, disp
        )
        for name, features, stereo in (("image", SHAPE, False), ("stereo", STEREO, True))
    }
    models = ModelSet(
        cameras={CAMERA: CameraModels(**variants)},
        array={},
        filter=FILTER,
        disp=disp,
        quality_energy=np.array([0.1, 1000.0]),
        quality_error=np.array([[0.05, 0.1, 0.2]]),
    )
    _, events = read(gamma_store, ["hillas_psi"], {*TRUTH, "stereo_h_max", "stereo_is_valid"})
    found, _ = apply(models, gamma_store, backend)
    rows = np.flatnonzero(found["reco_is_valid"] & events["stereo_is_valid"])
    known = {
        "mean_log_energy": np.log10(found["mean_energy"][rows]),
        "stereo_h_max": events["stereo_h_max"][rows],
    }
    one = np.ones((len(rows), 1))
    array = {
        "energy": fit("energy", known, known, np.log10(events["true_energy"][rows]) + 0.2),
        "direction": fit("direction", known, known, MERGED * one),
        "quality": fit("quality", known, known, QUALITY * one),
    }
    return replace(models, array=array)


@pytest.fixture(scope="module")
def components(gamma_store, proton_store, backend):
    return make_models(gamma_store, proton_store, backend, "components")


@pytest.fixture(scope="module")
def norm_sign(gamma_store, proton_store, backend):
    return make_models(gamma_store, proton_store, backend, "norm_sign")


def test_what_is_known_by_heart_is_found_in_every_column(components, gamma_store, backend):
    events, images = apply(components, gamma_store, backend)
    rows, truth = read(gamma_store, {"hillas_intensity", "hillas_width", *SOURCE, *TRUTH}, TRUTH)
    passed = parse(FILTER, condition=True)(rows)
    np.testing.assert_array_equal(images["tel_is_valid"], passed)
    assert 0 < passed.sum() < len(passed)
    expected = {
        "tel_energy": rows["true_energy"],
        "tel_energy_uncert": rows["true_energy"] * np.log(10) * 0.1,
        "tel_gammaness": np.ones(len(passed)),
        "tel_disp_fov_lon": rows["source_fov_lon"],
        "tel_disp_fov_lat": rows["source_fov_lat"],
        "tel_disp_sign": np.ones(len(passed)),
        "tel_disp_uncert": np.full(len(passed), 0.1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(images[name][passed], values[passed], rtol=2e-5, err_msg=name)
        assert np.isnan(images[name][~passed]).all()

    stereo = gamma_store.read_table("dl2/event", ["stereo_is_valid", "stereo_alt", "stereo_az"])
    event = gamma_store.read(f"dl1/image/{CAMERA}/event_index")
    n_images = np.bincount(event[passed], minlength=len(stereo["stereo_is_valid"]))
    valid = n_images > 0
    np.testing.assert_array_equal(events["reco_is_valid"], valid)
    np.testing.assert_array_equal(events["reco_n_tels"], n_images)
    for name in events.keys() - {"reco_n_tels", "event_quality", "reco_is_valid"}:
        np.testing.assert_array_equal(np.isfinite(events[name]), valid, err_msg=name)
    true = {name: values[valid] for name, values in truth.items()}
    stereo = {name: values[valid] for name, values in stereo.items()}
    found = {name: values[valid] for name, values in events.items()}

    def off(kind, other):
        return angular_separation(
            found[f"{kind}_az"], found[f"{kind}_alt"], other["az"], other["alt"]
        )

    assert off("disp", {"alt": true["true_alt"], "az": true["true_az"]}).max() < 1e-4
    # With geometry the array forests are asked: weights of 1/0.01^2 and 1/0.1^2, energies + 0.2.
    has_stereo = stereo["stereo_is_valid"]
    geometry = {axis: stereo[f"stereo_{axis}"] for axis in ("alt", "az")}
    merged, apart = off("reco", geometry), off("disp", geometry)
    np.testing.assert_allclose(merged[has_stereo], apart[has_stereo] * 100 / 101, rtol=1e-3)
    shift = np.where(has_stereo, 10**0.2, 1.0)
    np.testing.assert_allclose(found["reco_energy"], shift * true["true_energy"], rtol=1e-5)
    np.testing.assert_allclose(found["mean_energy"], true["true_energy"], rtol=1e-5)
    np.testing.assert_allclose(found["gammaness"], 1)
    np.testing.assert_allclose(found["reco_direction_uncert"][has_stereo], 0.08)
    np.testing.assert_array_equal(found["event_quality"][has_stereo], 2)
    relative = found["reco_energy_uncert"] / found["reco_energy"] / np.log(10)
    np.testing.assert_allclose(relative[has_stereo], 0.05)
    # Without it: what the images say.
    alone = ~has_stereo & (found["reco_n_tels"] == 1)
    assert alone.any()
    assert has_stereo.any()
    for left, right in (("reco_alt", "disp_alt"), ("gammaness", "mean_gammaness")):
        np.testing.assert_array_equal(found[left][~has_stereo], found[right][~has_stereo])
    np.testing.assert_allclose(found["reco_direction_uncert"][alone], 0.1)
    np.testing.assert_array_equal(found["event_quality"][alone], 2)


def test_classes_are_told_apart(components, proton_store, backend):
    events, images = apply(components, proton_store, backend)
    assert np.nanmax(images["tel_gammaness"]) == 0
    assert np.nanmax(events["gammaness"]) == 0
    assert np.isfinite(images["tel_energy"][images["tel_is_valid"]]).all()


def test_norm_and_sign(norm_sign, gamma_store, backend):
    _, images = apply(norm_sign, gamma_store, backend)
    rows, _ = read(gamma_store, {*AXIS, *SOURCE}, TRUTH)
    valid = images["tel_is_valid"]
    along, across = disp_target(*(rows[name][valid].astype(float) for name in (*AXIS, *SOURCE)))
    found = {name: values[valid] for name, values in images.items()}
    np.testing.assert_allclose(found["tel_disp"], np.hypot(along, across), rtol=1e-5)
    np.testing.assert_allclose(found["tel_disp_sign"], np.where(along > 0, 0.999, 0.001))
    # On the axis, on the side of the source.
    own = disp_target(
        *(rows[name][valid].astype(float) for name in AXIS),
        found["tel_disp_fov_lon"],
        found["tel_disp_fov_lat"],
    )
    np.testing.assert_allclose(own.along, np.sign(along) * found["tel_disp"], atol=1e-6)
    np.testing.assert_allclose(own.across, 0, atol=1e-6)


def test_blocks_and_backends_do_not_matter(norm_sign, gamma_store, backend, monkeypatch):
    expected = apply(norm_sign, gamma_store, backend)
    monkeypatch.setattr(blocks, "IMAGES_PER_BLOCK", 64)
    for other in (backend, make_backend("numpy")):
        for left, right in zip(apply(norm_sign, gamma_store, other), expected, strict=True):
            for name, values in left.items():
                np.testing.assert_allclose(values, right[name], rtol=1e-9, err_msg=name)


def test_forests_equal_scikit_learn_and_pass_over_what_is_not_finite(norm_sign, gamma_store):
    predict = ImagePredictor(norm_sign.cameras[CAMERA], FILTER, "norm_sign", make_backend("numpy"))
    rows, _ = read(gamma_store, predict.names, TRUTH)
    rng = np.random.default_rng(1)  # rows that the trees have not seen
    rows["hillas_r"] = rng.permutation(rows["hillas_r"])
    rows["hillas_phi"][::7] = np.nan
    found = predict(rows)
    stereo = rows["stereo_is_valid"]
    for variant, features, mask in (("image", SHAPE, ~stereo), ("stereo", STEREO, stereo)):
        model = getattr(norm_sign.cameras[CAMERA], variant)["energy"]
        matrix = np.stack([parse(text)(rows) for text in features], axis=1).astype(np.float32)
        good = parse(FILTER, condition=True)(rows) & np.isfinite(matrix).all(axis=1) & mask
        np.testing.assert_array_equal(found["tel_is_valid"][mask], good[mask])
        np.testing.assert_allclose(
            found["tel_log_energy"][good], model.estimator.predict(matrix[good]), atol=1e-6
        )
    bad = ~found["tel_is_valid"]
    assert bad[::7].all()
    assert all(np.isnan(found[name][bad]).all() for name in found.keys() - {"tel_is_valid"})


def test_nothing_passes(norm_sign, gamma_store, backend):
    models = replace(norm_sign, filter="hillas_intensity > 1e9")
    events, images = apply(models, gamma_store, backend)
    assert not images["tel_is_valid"].any()
    assert not events["reco_is_valid"].any()
    assert not events["event_quality"].any()
    assert not events["reco_n_tels"].any()
    assert np.isnan(events["reco_alt"]).all()


def test_gammaness_may_ask_for_the_energy(norm_sign, gamma_store, backend):
    camera = norm_sign.cameras[CAMERA]
    rows, _ = read(gamma_store, {"hillas_intensity"}, TRUTH)
    n_rows = len(rows["hillas_intensity"])
    label = np.arange(n_rows) % 2
    known = {"tel_log_energy": np.where(label, 0.5, 1.5)}
    asked = fit("gammaness", ["tel_log_energy"], known, label, kind=ExtraTreesClassifier)
    models = CameraModels({**camera.image, "gammaness": asked}, {})
    predict = ImagePredictor(models, "", "norm_sign", backend)
    assert "tel_log_energy" not in predict.names
    assert "stereo_is_valid" not in predict.names
    rows, _ = read(gamma_store, predict.names, TRUTH)
    found = predict(rows)
    valid = found["tel_is_valid"]
    expected = asked.estimator.predict_proba(found["tel_log_energy"][valid, None].astype("f4"))
    np.testing.assert_allclose(found["tel_gammaness"][valid], expected[:, 1], atol=1e-6)


def test_events_without_array_forests_are_the_means_of_their_images(backend):
    columns = {name: np.array([0.3]) for name in ("mean_log_energy", "mean_energy_error")}
    columns |= {"mean_gammaness": np.array([0.7]), "disp_error": np.array([0.1])}
    columns |= {"disp_fov_lon": np.array([1.0]), "disp_fov_lat": np.array([2.0])}
    columns |= {"n_images": np.array([2]), "stereo_is_valid": np.array([True])}
    found = ArrayPredictor({}, backend)(columns)
    assert {name: float(values[0]) for name, values in found.items()} == {
        "log_energy": 0.3,
        "energy_error": 0.3,
        "gammaness": 0.7,
        "fov_lon": 1.0,
        "fov_lat": 2.0,
        "direction_error": 0.1,
    }


def test_quarters():
    models = ModelSet(
        {}, {}, "", "norm_sign", np.array([1, 10, 100.0]), np.array([[1, 2, 3.0], [4, 5, 6.0]])
    )
    energy = np.log10([0.1, 5, 5, 20, 20, 1e4, 5, np.nan])
    error = np.array([0.5, 2, 3.5, 3.5, 5.5, 7, np.nan, 1])
    np.testing.assert_array_equal(event_quality(energy, error, models), [1, 2, 4, 1, 3, 4, 0, 0])
    none = replace(models, quality_error=np.empty((0, 3)))
    assert not event_quality(energy, error, none).any()
