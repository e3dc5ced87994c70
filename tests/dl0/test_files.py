"""DL0 files: what is written is read, by astropy too; and what is no DL0 file is said."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.dl0.columns import needed_columns
from astri_gpu.dl0.files import Dl0Writer, find_dl0, read_dl0
from astri_gpu.dl0.header import array_cards, run_cards, run_of_header
from astri_gpu.dl0.names import parse_name
from astri_gpu.dl3.sky import REFERENCE_UNIX_S
from astri_gpu.errors import AstriError
from astri_gpu.io.fits_bulk import BulkColumn, BulkWriter, read_header
from astri_gpu.packets.descriptor import read_descriptor
from tests.dl0.conftest import DESCRIPTION, N_ROWS, drawn_packets, write_run

TYPES = read_descriptor("astri_gpu_v1").types
KINDS = tuple(TYPES)


def close(files):
    for file in files:
        file.close()


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_found_and_hold_the_packets(dl0_folder, kind):
    files = find_dl0([dl0_folder], kind)
    assert [file.tel_id for file in files] == [1, 4, 11]
    for file in files:
        rows = drawn_packets(TYPES[kind], N_ROWS[kind], file.tel_id)
        assert file.table.n_rows == N_ROWS[kind]
        np.testing.assert_array_equal(file.table.read("SEQCNT"), rows["sequence"] & 0x3FFF)
        for field in TYPES[kind].fields:
            if field.fits is None:
                assert field.name in ("tel_id", "run_id")
            elif field.code != "bits":
                np.testing.assert_array_equal(file.table.read(field.fits), rows[field.name])
                assert file.table.columns[field.fits].unit == field.unit
            else:
                bits = np.unpackbits(rows[field.name], axis=1)[:, : field.shape[0]]
                np.testing.assert_array_equal(file.table.read(field.fits), bits.astype(bool))
    close(files)


@pytest.mark.parametrize("kind", KINDS)
def test_astropy_reads_them(dl0_folder, kind):
    path = dl0_folder / DESCRIPTION.name.dl0(4, kind)
    with fits.open(path) as file, read_dl0(path) as ours:
        file.verify("exception")
        for name in ours.table.columns:
            np.testing.assert_array_equal(file[1].data[name], ours.table.read(name), name)
        header = file[0].header
        assert run_of_header(header, "x") == ours.run
        epoch = header["MJDREFI"] + header["MJDREFF"]
        start = Time(epoch + header["TSTART"] / 86400, format="mjd", scale="utc")
        assert start.isot == header["DATE-OBS"]
        assert start.unix == pytest.approx(REFERENCE_UNIX_S + DESCRIPTION.start_s, abs=1e-5)


def test_the_header_names_the_run(dl0_folder):
    (file, *others) = find_dl0(sorted(dl0_folder.iterdir()), "HK")
    run = file.run
    assert (run.obs_id, run.tel_id, run.position) == (12_000_003, 1, (-159.0, 91.5, 0.25))
    assert file.name == DESCRIPTION.name
    assert parse_name(file.path).obs_id == run.obs_id
    for name in ("target", "ra_deg", "dec_pnt_deg", "start_s", "camera", "simulation_model"):
        assert getattr(run, name) == getattr(DESCRIPTION, name)
    assert run.site == (28.3, -16.51, 2390.0)
    assert run.tel_ids == (1, 4, 11)
    assert file.header["PROVSTEP"] == "preprocess"
    assert (file.header["LEVEL"], file.header["DATATYPE"]) == ("DL0", "HK")
    close([file, *others])


def test_cards_of_array_files_have_no_telescope():
    cards = run_cards(replace(DESCRIPTION, simulation_model=None), None, "CAL1")
    assert not {"TELID", "TELX", "SIMMODEL"} & set(cards)
    assert cards["LEVEL"][0] == "DL1a"
    header = {name: value for name, (value, _) in cards.items()}
    assert run_of_header(header, "x").tel_id is None
    of_telescope = {name: value for name, (value, _) in run_cards(DESCRIPTION, 4, "HK").items()}
    again = array_cards(of_telescope | {"PROVSTEP": "preprocess"}, "SEB0")
    wanted = run_cards(DESCRIPTION, None, "SEB0")
    assert again | {"DATE": None} == wanted | {"DATE": None}
    with pytest.raises(AstriError, match=r"no telescope 2 \(it has 1, 4, 11\)"):
        run_cards(DESCRIPTION, 2, "SCI")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"OBSNUM": None}, "header of x has no OBSNUM"),
        ({"OBSNUM": "7"}, "has '7' as OBSNUM"),
        ({"RUNNUM": True}, "has True as RUNNUM"),
        ({"RA_PNT": "here"}, "has 'here' as RA_PNT"),
        ({"TSTART": float("inf")}, "has inf as TSTART"),
        ({"TELLIST": "1,b"}, "has '1,b' as TELLIST"),
        ({"NIGHT": "2026-01-15"}, "has '2026-01-15' as NIGHT"),
        ({"TELX": None}, "has no TELX"),
        ({"TIMESYS": "TT"}, "has 'TT' as TIMESYS"),
        ({"OBJECT": 5}, "has 5 as OBJECT"),
    ],
)
def test_a_header_that_is_none_of_a_run_is_said(changes, text):
    header = {name: value for name, (value, _) in run_cards(DESCRIPTION, 4, "SCI").items()}
    header |= changes
    header = {name: value for name, value in header.items() if value is not None}
    with pytest.raises(AstriError, match=text):
        run_of_header(header, "x")


def test_files_that_do_not_belong_together_are_said(dl0_folder, other_folder, tmp_path):
    with pytest.raises(AstriError, match=r"of run 3 of observation 12 .* and .* of run 4"):
        find_dl0([dl0_folder, other_folder], "SCI")
    first = dl0_folder / DESCRIPTION.name.dl0(4, "SCI")
    copy = shutil.copy(first, tmp_path / "copy.fits")
    with pytest.raises(AstriError, match="both of telescope 4 and of kind SCI"):
        find_dl0([dl0_folder, copy], "SCI")
    (again,) = find_dl0([first, first], "SCI")
    again.close()
    with pytest.raises(AstriError, match=r"no DL0 file of kind VAR \(\*_0602.lv0.fits\)"):
        find_dl0([other_folder], "VAR")
    with pytest.raises(AstriError, match="no DL0 file of kind VAR"):
        find_dl0([first], "VAR")
    renamed = tmp_path / DESCRIPTION.name.dl0(4, "VAR")
    shutil.copy(first, renamed)
    with pytest.raises(AstriError, match="its header says SCI"):
        find_dl0([tmp_path], "VAR")


def test_any_telescopes_are_a_run(dl0_folder):
    paths = [dl0_folder / DESCRIPTION.name.dl0(tel_id, "SCI") for tel_id in (11, 1)]
    files = find_dl0(paths, "SCI")
    assert [file.tel_id for file in files] == [1, 11]
    close(files)


def write_table(path, columns, kind="SCI"):
    """Write a file of a run with other columns."""
    rows = np.zeros(2, [(column.name, column.dtype) for column in columns])
    with BulkWriter(path, "EVENTS", columns, run_cards(DESCRIPTION, 4, kind)) as writer:
        writer.append(rows)
    return path


def test_columns_that_are_not_there_are_said(tmp_path):
    good = [BulkColumn(name, "u4") for name in needed_columns("SCI") if name != "ADC"]
    adc = BulkColumn("ADC", "u2", (2, 5))
    with pytest.raises(AstriError, match="no column ADC in EVENTS"):
        read_dl0(write_table(tmp_path / "a.fits", good))
    with read_dl0(tmp_path / "a.fits", columns=["TIME_S", "EVT_CTR"]) as file:
        assert file.table.read("TIME_S").tolist() == [0, 0]
    for number, wrong in enumerate(
        (BulkColumn("ADC", "u2", (5,)), BulkColumn("ADC", "f4", (2, 5)), BulkColumn("ADC", "u1"))
    ):
        with pytest.raises(AstriError, match=r"ADC of .* where whole numbers on 2 axes are needed"):
            read_dl0(write_table(tmp_path / f"b{number}.fits", [*good, wrong]))
    with pytest.raises(AstriError, match="of kind SEB0"):
        read_dl0(write_table(tmp_path / "c.fits", [*good, adc], kind="SEB0"))
    fits.PrimaryHDU().writeto(tmp_path / "d.fits")
    with pytest.raises(AstriError, match=r"d\.fits has no"):
        read_dl0(tmp_path / "d.fits")


def test_a_file_that_is_cut_off_is_said(dl0_folder, tmp_path):
    content = (dl0_folder / DESCRIPTION.name.dl0(1, "SCI")).read_bytes()
    path = tmp_path / "cut.fits"
    path.write_bytes(content[:-40_000])
    with pytest.raises(AstriError, match="is cut off: EVENTS should end at byte"):
        find_dl0([path], "SCI")


def test_another_descriptor_makes_other_columns(tmp_path):
    packet_type = replace(TYPES["HK"], fields=TYPES["HK"].fields[:7])
    path = tmp_path / "hk.fits"
    rows = drawn_packets(packet_type, 5)
    with Dl0Writer(path, DESCRIPTION, 1, packet_type) as writer:
        writer.append(rows)
    with pytest.raises(AstriError, match="no column NTRIG, NEVENTS, DEADTIME, STATUS in HOUSEKEEP"):
        read_dl0(path)
    with read_dl0(path, columns=["ALT"]) as file:
        np.testing.assert_array_equal(file.table.read("ALT"), rows["pointing_alt_deg"])


def test_writing_replaces_only_when_asked(tmp_path):
    write_run(tmp_path, kinds=("VAR",))
    with pytest.raises(AstriError, match="exists already"):
        write_run(tmp_path, kinds=("VAR",))
    write_run(tmp_path, kinds=("VAR",), overwrite=True)
    assert read_header(tmp_path / DESCRIPTION.name.dl0(1, "VAR"), 1)["EXTNAME"] == "VARIANCE"


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutilated_files_give_a_sentence_or_a_run(dl0_folder, tmp_path, data):
    content = bytearray((dl0_folder / DESCRIPTION.name.dl0(1, "HK")).read_bytes())
    n_header = len(content) - 2880  # the rows of 12 packets take one block
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, n_header - 1))
        content[place] = data.draw(st.sampled_from(b"0123456789 '=/TFNAXIS()-.&\xff\x00"))
    path = tmp_path / "mutilated.fits"
    path.write_bytes(content)
    try:
        (file,) = find_dl0([path], "HK")
    except AstriError as error:
        said = str(error)
    else:
        said = str(file.path)
        for name in needed_columns("HK"):
            assert file.table.read(name).shape == (file.table.n_rows,)
        assert file.name.obs_id == file.run.obs_id
        file.close()
    assert "mutilated.fits" in said
