"""Store to FITS and back: nothing is lost that the format can hold, column by column."""

import gzip
import os

import numpy as np
import pytest
from astropy.io import fits

from astri_gpu.config import compose
from astri_gpu.errors import UsageError
from astri_gpu.io.astri_fits_export import export_astri
from astri_gpu.stages import export, ingest
from astri_gpu.store import open_store
from astri_gpu.store_layout import read_layout

from .conftest import CAMERA
from .test_format import shower_images

SECOND_NS = 1_000_000_000
LEVELS = {"lv1b": "DL1b", "lv1c": "DL1c", "lv2a": "DL2a", "lv2b": "DL2b"}
# Wider in the store than in the file, or made of other columns there: absolute tolerances.
LOOSE = {
    "stereo_alt": 1e-6,
    "stereo_az": 3e-6,
    "stereo_core_x": 1e-4,
    "stereo_core_y": 1e-4,
    "stereo_core_tilted_x": 2e-4,
    "stereo_core_tilted_y": 2e-4,
    "stereo_h_max": 2e-3,
    "stereo_ang_distance_uncert": 1e-6,
    "true_alt": 2e-6,
    "true_az": 2e-5,
    "true_core_x": 4e-5,
    "true_core_y": 4e-5,
    "true_energy": 1e-5,
    "hillas_r": 1e-6,
    "hillas_phi": 2e-5,
    "hillas_psi": 1e-5,
}


def showers_with_images(store, level):
    """Return the rows of events that a file of this level has."""
    shower = store.read("dl0/event/event_type") == 32
    if level == "lv2b":
        return np.flatnonzero(shower)
    index = np.unique(store.read(f"dl0/image/{CAMERA}/event_index"))
    return index[shower[index]]


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_lost_that_the_format_holds(made, returned, level):
    old, new = open_store(made.dl2b), open_store(returned[level].output)
    assert returned[level].warnings == []
    assert new.attrs["data_level"] == LEVELS[level]
    for name in ("kind", "obs_id", "simulation_model", "truncated"):
        assert new.attrs[name] == old.attrs[name], name
    rows = showers_with_images(old, level)
    assert new.attrs["n_events"] == len(rows)
    tables = {
        "lv1b": (),
        "lv1c": (f"dl2/image/{CAMERA}",),
        "lv2a": ("dl2/event", f"dl2/image/{CAMERA}"),
        "lv2b": ("dl2/event",),
    }[level]
    images = shower_images(made.dl2b)
    images_of = () if level == "lv2b" else (f"dl0/image/{CAMERA}", f"dl1/image/{CAMERA}")
    for table in ("dl0/event", "simulation/event", *images_of, *tables):
        for name in new.columns(table):
            if name in ("event_index", "time_s", "time_ns", "trigger_time_ns"):
                continue
            if name in ("n_trigger_pixels", "astri_delta", "tel_is_valid"):
                continue  # not of the file: see below
            found = new.read(f"{table}/{name}")
            column = old.read(f"{table}/{name}")[rows] if "event" in table else images[name]
            assert found.dtype == column.dtype, name
            if name == "morphology_n_pixels":  # unknown where no image survived
                use = np.isfinite(images["hillas_intensity"])
                found, column = found[use], column[use]
            if (level != "lv2b" and name in LOOSE) or (name in LOOSE and name.startswith("true_")):
                np.testing.assert_allclose(found, column, rtol=0, atol=LOOSE[name], err_msg=name)
            else:
                np.testing.assert_array_equal(found, column, err_msg=f"{table}/{name}")
    if level != "lv2b":
        delta, psi = new.read(f"dl1/image/{CAMERA}/astri_delta"), images["hillas_psi"]
        np.testing.assert_allclose(delta, np.deg2rad(psi), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(
            image_times(new, new.read_table(f"dl0/image/{CAMERA}")), image_times(old, images)
        )
    else:
        for name in ("time_s", "time_ns"):
            np.testing.assert_array_equal(
                new.read(f"dl0/event/{name}"), old.read(f"dl0/event/{name}")[rows]
            )


def image_times(store, images):
    """Return the trigger times of telescopes, whole ns since 1970."""
    event = images["event_index"]
    seconds = store.read("dl0/event/time_s")[event] * SECOND_NS
    delay = np.rint(images["trigger_time_ns"].astype(np.float64)).astype(np.int64)
    return seconds + store.read("dl0/event/time_ns")[event] + delay


@pytest.mark.parametrize("level", LEVELS)
def test_what_stands_around_the_events_comes_back(made, returned, level):
    old, new = open_store(made.dl2b), open_store(returned[level].output)
    for name in ("histogram", "energy_edges", "core_distance_edges"):
        path = f"simulation/thrown/{name}"
        np.testing.assert_array_equal(new.read(path), old.read(path))
    assert new.group_attrs("simulation/thrown") == old.group_attrs("simulation/thrown")
    assert new.group_attrs("simulation") == old.group_attrs("simulation")
    before, after = read_layout(old), read_layout(new)
    assert after.cameras[0].same_as(before.cameras[0])
    for name in ("tel_id", "x", "y", "z"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (after.name, after.note) == (before.name, before.note)
    steps, record = [], new.attrs["provenance"]
    while record:
        steps.append(record["stage"])
        record = record.get("previous")
    assert steps == ["ingest", "export", "process", "simulate"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_second_round_changes_nothing(made, returned, tmp_path, level):
    again = tmp_path / f"again.{level}"
    export_astri(returned[level].output, again, level=level)
    pairs = [(made.files[level], again)]
    if again.is_dir():
        pairs = list(zip(sorted(pairs[0][0].iterdir()), sorted(again.iterdir()), strict=True))
    for first, second in pairs:
        with fits.open(first) as one, fits.open(second) as two:
            for table in ("EVENTS", "SIM_EVTS", "SIM_MORE", "TELCONF"):
                names = one[table].columns.names
                assert two[table].columns.names == names
                for name in names:
                    found, expected = (np.array(each[table].data[name]) for each in (two, one))
                    if name == "STIP":  # computed from what is stored wider than in the file
                        np.testing.assert_allclose(found, expected, rtol=1e-6)
                    else:
                        np.testing.assert_array_equal(found, expected, name)


def test_parts_of_a_file(made, returned, back):
    whole = open_store(returned["lv2a"].output)
    mask, tel_id = whole.read("dl0/event/tel_mask"), whole.read("instrument/telescope/tel_id")
    part = back(made.files["lv2a"], max_events=7, obs_id=77)
    assert part.attrs["n_events"] == 7
    assert part.group_attrs("simulation")["partial"]
    assert set(part.read("simulation/event/obs_id")) == {77}
    np.testing.assert_array_equal(part.read("dl0/event/tel_mask"), mask[:7])
    some = back(made.files["lv2a"], allowed_telescopes=(2, 5))
    wanted = np.isin(tel_id, (2, 5))
    kept = mask[:, wanted].any(axis=1)
    np.testing.assert_array_equal(some.read("dl0/event/tel_mask"), mask[kept][:, wanted])
    assert set(some.read(f"dl0/image/{CAMERA}/tel_id")) == {2, 5}
    with pytest.raises(UsageError, match=r"asks for \[12\]"):
        back(made.files["lv2a"], allowed_telescopes=(12,))


def test_blocks_change_nothing(made, returned, back, monkeypatch):
    from astri_gpu.io import astri_fits_events, astri_fits_rows, astri_fits_sources

    for level in ("lv1c", "lv2a", "lv2b"):
        whole = contents(open_store(returned[level].output))
        with monkeypatch.context() as patch:
            patch.setattr(astri_fits_sources, "ROWS_PER_STEP", 60)
            patch.setattr(astri_fits_events, "EVENTS_PER_STEP", 30)
            parts = contents(back(made.files[level]))
        assert whole.keys() == parts.keys()
        for name, values in whole.items():
            np.testing.assert_array_equal(parts[name], values, err_msg=name)
    monkeypatch.setattr(astri_fits_rows, "EVENTS_PER_STEP", 30)
    small = made.files["lv2a"].parent / "small_steps.lv2a"
    export_astri(made.dl2b, small, level="lv2a", overwrite=True)
    with fits.open(made.files["lv2a"]) as one, fits.open(small) as two:
        assert one["EVENTS"].data.tobytes() == two["EVENTS"].data.tobytes()


def contents(store):
    """Return all arrays of events and images."""
    tables = ["dl0/event", "simulation/event"]
    tables += [name for name in ("dl2/event",) if name in store]
    tables += [f"{level}/image/{CAMERA}" for level in ("dl0", "dl1", "dl2")]
    return {
        f"{table}/{name}": store.read(f"{table}/{name}")
        for table in tables
        if table in store
        for name in store.columns(table)
    }


def test_the_stages_know_the_format(made, tmp_path):
    common = ["progress=false", "execution.n_workers=1"]
    inputs = [f"input={[str(made.dl2a), str(made.dl2b)]}", f"output='{tmp_path}/out'"]
    config = compose("export", [*inputs, "format=astri", "level=lv1b", *common])
    summary = export.run(config)
    assert sorted(os.listdir(tmp_path / "out")) == ["dl2a.lv1b", "dl2b.lv1b"]
    assert "export: 2 stores" in summary.line
    assert any("calibration events" in text for text in summary.warnings)
    assert export.run(config).n_before == 2
    with pytest.raises(UsageError, match="different highest levels"):
        export.run(compose("export", [*inputs, "format=astri", *common]))
    with pytest.raises(UsageError, match="belongs to format=astri"):
        export.run(compose("export", [*inputs, "level=lv2a", *common]))
    with pytest.raises(UsageError, match="leave out images=true"):
        export.run(compose("export", [*inputs, "format=astri", "images=true", *common]))
    folders = [str(tmp_path / "out" / name) for name in ("dl2a.lv1b", "dl2b.lv1b")]
    arguments = [f"input={folders}", f"output='{tmp_path}/stores'", *common]
    done = ingest.run(compose("ingest", arguments))
    assert done.n_done == 2
    one, two = (open_store(path) for path in done.outputs)
    name = f"dl1/image/{CAMERA}/hillas_length"
    np.testing.assert_array_equal(one.read(name), two.read(name))


def test_a_level_that_the_store_does_not_have(made, tmp_path):
    for level, lacks in (("lv1c", "predictions for images"), ("lv2b", "energy, gammaness")):
        with pytest.raises(UsageError, match=f"cannot be written as {level}, it has no {lacks}"):
            export_astri(made.dl2a, tmp_path / "a", level=level)
    assert os.listdir(tmp_path) == []


def test_packed_files_and_odd_names(made, returned, back, tmp_path):
    plain = open_store(returned["lv2a"].output).read(f"dl1/image/{CAMERA}/hillas_intensity")
    odd = tmp_path / "a [1](x)+2"
    odd.mkdir()
    packed = odd / "MA_012_[b]+1.lv2a.fits.gz"
    packed.write_bytes(gzip.compress(made.files["lv2a"].read_bytes()))
    np.testing.assert_array_equal(back(packed).read(f"dl1/image/{CAMERA}/hillas_intensity"), plain)
    written = odd / "b[1].lv2a.fits.gz"
    export_astri(made.dl2b, written, level="lv2a")
    assert written.read_bytes().startswith(b"\x1f\x8b")
    np.testing.assert_array_equal(back(written).read(f"dl1/image/{CAMERA}/hillas_intensity"), plain)
