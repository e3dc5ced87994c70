"""What features may ask for: what a store has, less what would give the answer away."""

import shutil

import numpy as np
import pytest
import zarr

from astri_gpu.config import compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.reconstruction.blocks import read_event_blocks
from astri_gpu.reconstruction.catalogue import (
    COMBINED,
    MADE_LATER,
    PREDICTED,
    REFUSED,
    SIMULATED,
    Names,
    advice,
    check_features,
    event_names,
    image_names,
)
from astri_gpu.reconstruction.derived import IMAGE_DERIVED
from astri_gpu.reconstruction.expressions import ALIASES, parse
from astri_gpu.schema import TABLES
from astri_gpu.store import open_store

CAMERA = "ASTRICam"


@pytest.mark.parametrize("choice", ["standard", "astri"])
def test_the_sets_of_features_fit_a_processed_store(choice, gamma_store):
    features = compose("train", ["input=x", "output=y", f"features={choice}"]).features
    condition = check_features(
        [features.filter], image_names(gamma_store, CAMERA), "features.filter", condition=True
    )
    names = set(condition[0].names)
    for kind in ("image", "stereo"):
        for task in ("energy", "disp", "gammaness"):
            extra = PREDICTED if task == "gammaness" else ()
            available = image_names(gamma_store, CAMERA, extra)
            key = f"{kind}_{task}"
            found = check_features(getattr(features, key), available, f"features.{key}")
            names.update(name for expression in found for name in expression.names)
    for task in ("energy", "gammaness", "direction"):
        texts = getattr(features, f"array_{task}")
        found = check_features(texts, event_names(gamma_store), f"features.array_{task}")
        assert [expression.text for expression in found] == texts
    # What may be asked for can be read, and has values.
    images = next(read_event_blocks(gamma_store, names - set(PREDICTED), [])).images[CAMERA]
    with_charge = images["hillas_length"] > 0
    for name in names - set(PREDICTED):
        if not name.startswith("stereo"):
            assert np.all(np.isfinite(images[name][with_charge])), name


def test_all_that_is_offered_can_be_read(gamma_store):
    images, events = image_names(gamma_store, CAMERA), event_names(gamma_store, ())
    assert len(images) == len(list(images)) > 50
    (block,) = read_event_blocks(gamma_store, images, events)
    assert set(block.images[CAMERA]) == {*images, "event"}
    assert set(block.events) == set(events)


LEAKS = {
    "true_energy": "known of simulated events only",
    "true_impact_distance": "known of simulated events only",
    "true_primary_id": "known of simulated events only",
    "source_fov_lon": "known of simulated events only",
    "MCRUNNUM": "it numbers rows, runs or telescopes",
    "MCEVTNUM": "it numbers rows, runs or telescopes",
    "obs_id": "it numbers rows, runs or telescopes",
    "event_id": "it numbers rows, runs or telescopes",
    "event_index": "it numbers rows, runs or telescopes",
    "tel_id": "it numbers rows, runs or telescopes",
    "shower_id": "it numbers simulated showers",
    "time_s": "it says when an event was taken",
    "time_ns": "it says when an event was taken",
    "event_type": "the same for all showers",
    "shower": "the same for all showers",
    "ALPHA": "assumed source position",
    "astri_alpha": "assumed source position",
    "MISS": "assumed source position",
    "astri_miss": "assumed source position",
}


@pytest.mark.parametrize("name", LEAKS)
def test_leaks_are_refused_with_the_reason(name, gamma_store):
    ours = ALIASES.get(name, name)
    told = f"features.x: 'stereo_h_max \\* {name}' must not use {ours}: .*{LEAKS[name]}"
    for available in (image_names(gamma_store, CAMERA), event_names(gamma_store)):
        with pytest.raises(UsageError, match=told):
            check_features(["stereo_n_tels", f"stereo_h_max * {name}"], available, "features.x")


def test_nothing_of_the_simulation_is_offered_as_a_feature(gamma_store):
    """Nor any key of a table."""
    for available in (image_names(gamma_store, CAMERA), event_names(gamma_store)):
        for table in ("simulation/event", "simulation/image"):
            for name in TABLES[table]:
                with pytest.raises(UsageError, match=f"must not use {name}"):
                    check_features([name], available, "x")
    assert not SIMULATED & {*REFUSED, *MADE_LATER, *COMBINED}


def test_conditions_may_choose_telescopes_but_not_by_truth(gamma_store):
    available = image_names(gamma_store, CAMERA)
    (found,) = check_features(["tel_id != 3 and stereo_is_valid"], available, "f", condition=True)
    assert found.names == ("tel_id", "stereo_is_valid")
    for name in ("true_energy", "shower_id", "source_fov_lon"):
        with pytest.raises(UsageError, match=f"must not use {name}"):
            check_features([f"{name} > 0"], available, "f", condition=True)


@pytest.mark.parametrize(
    ("text", "of_events", "told"),
    [
        ("hilas_width", False, "hilas_width, which is no column .*, did you mean 'hillas_width'"),
        ("mean_energie", True, "is no column of images or events"),
        ("timing_slope", False, "timing_slope: the camera ASTRICam has one sample per image"),
        ("peak_time_std", False, "has one sample per image, so it is NaN in the store"),
        ("tel_log_energy", False, "cannot use tel_log_energy: `astri-gpu reconstruct` makes it"),
        ("gammaness", True, "cannot use gammaness: `astri-gpu reconstruct` makes it"),
        ("tel_gammaness", False, "cannot use tel_gammaness: `astri-gpu reconstruct` makes it"),
        ("n_images", False, "cannot use n_images: `astri-gpu reconstruct` makes it"),
        ("hillas_width", True, "hillas_width, which images have one by one, and events not"),
        ("hillas_width[0]", False, r"^features.x: The expression .* '\[' is not understood"),
    ],
)
def test_other_names_are_explained(text, of_events, told, gamma_store):
    available = event_names(gamma_store) if of_events else image_names(gamma_store, CAMERA)
    with pytest.raises(UsageError, match=told):
        check_features([text], available, "features.x")


def test_columns_that_a_store_lacks_are_named_with_their_maker(gamma_store, tmp_path):
    raw = open_store(gamma_store.path.parent / "dl0.zarr")
    with pytest.raises(
        AstriError,
        match=r"features.x: 'hillas_width' needs hillas_width, which "
        r"the store .*dl0.zarr \(camera ASTRICam\) does not have: "
        "`astri-gpu process` makes it",
    ):
        check_features(["hillas_width"], image_names(raw, CAMERA), "features.x")
    with pytest.raises(AstriError, match=r"stereo_h_max, .* `astri-gpu process` makes it"):
        check_features(["stereo_h_max"], event_names(raw), "features.x")
    with pytest.raises(AstriError, match=r"stereo_disp, .* does not have"):
        check_features(["stereo_disp"], image_names(raw, CAMERA), "features.x")
    copy = tmp_path / "less.zarr"
    shutil.copytree(gamma_store.path, copy)
    shutil.rmtree(copy / f"dl1/image/{CAMERA}/astri_conc")
    less = image_names(open_store(copy), CAMERA)
    assert "astri_conc" not in less
    with pytest.raises(AstriError, match="'CONC' needs astri_conc, "):
        check_features(["CONC"], less, "features.x")
    with pytest.raises(AstriError, match="has no images of LSTCam; it has ASTRICam"):
        image_names(gamma_store, "LSTCam")


def test_cameras_with_samples_have_timing(gamma_store, tmp_path):
    copy = tmp_path / "waveforms.zarr"
    shutil.copytree(gamma_store.path, copy)
    root = zarr.open_group(copy, mode="r+", use_consolidated=False)
    root[f"instrument/camera/{CAMERA}"].attrs["n_samples"] = 30
    names = image_names(open_store(copy), CAMERA)
    assert not names.useless
    assert check_features(["timing_slope"], names, "features.x")


def test_names_are_a_collection_without_the_useless():
    names = Names(frozenset("abc"), "here", {"b": "it is empty"})
    assert list(names) == ["a", "c"]
    assert len(names) == 2
    assert "b" not in names


def test_advice_is_given_for_columns_of_the_assumed_source():
    found = advice([parse("DIST + WIDTH"), parse("astri_m3long * sign(COSDELTAALPHA)")])
    assert [text.split()[0] for text in found] == ["astri_cos_delta_alpha", "astri_dist"]
    assert "source position that `process` assumed" in found[0]
    assert advice([parse("WIDTH")]) == []


def test_derived_columns_say_what_they_are():
    for name, entry in IMAGE_DERIVED.items():
        assert entry.text, name
        assert entry.events, name
        assert not any(name in table for table in TABLES.values())
