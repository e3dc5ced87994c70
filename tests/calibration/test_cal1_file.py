"""CAL1 files: what astropy and we read, which constants hold when, and damaged files."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.calibration.cal1_file import ConstantsSet, cal1_header, read_cal1, set_at, write_cal1
from astri_gpu.errors import AstriError, UsageError

SHAPE = (2, 9)


@pytest.fixture(scope="module")
def sets():
    random = np.random.default_rng(1)

    def made(tel_id, start, stop):
        valid = random.random(SHAPE) < 0.8
        return ConstantsSet(
            tel_id,
            start,
            stop,
            pedestal=random.normal(1000, 5, SHAPE),
            pedestal_std=random.uniform(1, 2, SHAPE),
            dc_to_pe=np.where(valid, random.uniform(0.01, 0.02, SHAPE), 0),
            pixel_valid=valid,
            n_pedestal=60,
            n_flatfield=120,
            gain=random.uniform(50, 60, SHAPE),
            scale_error=0.004,
        )

    return [made(2, 0.0, 600.0), made(1, 300.0, 600.0), made(1, 0.0, 300.0)]


@pytest.fixture
def path(sets, tmp_path):
    path = tmp_path / "cal1.fits"
    write_cal1(path, sets, {"OBS_ID": (1_000_002, "number of the run")})
    return path


def test_what_was_written_is_read_in_order(path, sets):
    found = read_cal1(path)
    assert [(each.tel_id, each.start_s) for each in found] == [(1, 0), (1, 300), (2, 0)]
    for ours, theirs in zip(found, (sets[2], sets[1], sets[0]), strict=True):
        for name in ("pedestal", "pedestal_std", "dc_to_pe", "gain"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6)
        np.testing.assert_array_equal(ours.pixel_valid, theirs.pixel_valid)
        assert (ours.stop_s, ours.n_pedestal, ours.n_flatfield) == (theirs.stop_s, 60, 120)
        assert ours.scale_error == 0.004
        assert np.isnan(ours.pedestal_error).all()
    assert cal1_header(path)["OBS_ID"] == 1_000_002


def test_astropy_reads_it(path, sets):
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(path) as hdus:
        hdus.verify("exception")
        table = hdus["CONSTANTS"]
        assert table.columns["PEDESTAL"].unit == "adu"
        np.testing.assert_allclose(table.data["DCTOPE"][0], sets[0].dc_to_pe, rtol=1e-6)


def test_constants_of_the_nearest_part_of_the_run_hold(path):
    found = read_cal1(path)
    time = np.array([-5.0, 0, 299.9, 300, 1e6])
    np.testing.assert_array_equal(set_at(found, 1, time), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(set_at(found, 2, time), [2] * 5)
    with pytest.raises(AstriError, match="no camera constants of telescope 3"):
        set_at(found, 3, time)


def test_other_shapes_and_existing_files_are_refused(path, sets, tmp_path):
    other = replace(sets[0], pedestal=np.zeros((1, 9)))
    with pytest.raises(AstriError, match=r"\(1, 9\), \(2, 9\)"):
        write_cal1(tmp_path / "x.fits", [sets[1], other], {})
    with pytest.raises(AstriError, match="no constants"):
        write_cal1(tmp_path / "x.fits", [], {})
    with pytest.raises(UsageError, match="exists already"):
        write_cal1(path, sets, {})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dc_to_pe": np.full(SHAPE, np.nan)}, "DCTOPE that is no number in .* of telescope 2"),
        ({"stop_s": -1.0}, "no interval"),
        ({"start_s": np.nan}, "no interval"),
    ],
)
def test_constants_that_calibrate_nothing_are_refused(sets, tmp_path, change, match):
    path = tmp_path / "bad.fits"
    write_cal1(path, [replace(sets[0], **change)], {})
    with pytest.raises(AstriError, match=match) as caught:
        read_cal1(path)
    assert str(path) in str(caught.value)


def test_files_without_the_columns_are_refused(path, tmp_path):
    damaged = tmp_path / "damaged.fits"
    whole = path.read_bytes()
    for old, new, match in (
        (b"'PEDSTD  '", b"'PEDSTX  '", "no column PEDSTD"),
        (b"'CONSTANTS'", b"'CONSTANTZ'", "no part CONSTANTS"),
        (b"'(9,2)   '", b"'(6,3)   '", "PEDESTAL|shape"),
    ):
        damaged.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(AstriError, match=match):
            read_cal1(damaged)
    for size in (0, 100, 2880, len(whole) // 2):
        damaged.write_bytes(whole[:size])
        with pytest.raises(AstriError, match=r"damaged\.fits"):
            read_cal1(damaged)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=6,
    )
)
def test_damaged_bytes_give_an_error_or_constants(path, changes):
    whole = path.read_bytes()
    damaged = bytearray(whole)
    # Most of the file is header: the rows are three times 500 bytes.
    for share, new in changes:
        start = int(share * len(whole))
        damaged[start : start + len(new)] = new
    other = path.with_name("other.fits")
    other.write_bytes(damaged)
    try:
        found = read_cal1(other)
    except AstriError as error:
        if "other.fits" not in str(error):
            raise
        return
    for each in found:
        assert isinstance(each.tel_id, int)
        assert np.isfinite(each.dc_to_pe[each.pixel_valid]).all()
        assert each.pixel_valid.dtype == bool
