"""Tables written in bulk against astropy and fitsio, and reading of damaged files."""

import errno
import gc
import os
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.io import fits_bulk, fits_bulk_read
from astri_gpu.io.fits_bulk import BulkColumn, BulkWriter, MappedTable, read_header
from astri_gpu.io.fits_bulk_cards import header_bytes, header_values

fitsio = pytest.importorskip("fitsio")

COLUMNS = (
    BulkColumn("COUNT", "u2", description="of something", source="sequence", low_bits=14),
    BulkColumn("A", "u1"),
    BulkColumn("B", "i1"),
    BulkColumn("C", "u2", (2, 3), "adu", "on two axes"),
    BulkColumn("D", "u4", (), "s", "a description that is far too long for the rest of its card"),
    BulkColumn("E", "u8"),
    BulkColumn("F", "i2", (4,)),
    BulkColumn("G", "i4"),
    BulkColumn("H", "i8"),
    BulkColumn("I", "f4", (3,), "deg"),
    BulkColumn("J", "f8"),
    BulkColumn("K", "bits", (11,)),
    BulkColumn("L", "u4", (5,)),
)
LONG = "A long value that goes on and on, 'quoted', over more than one card of the header. " * 3
CARDS = {
    "ANUMBER": (np.float64(-1.25e-300), "of numpy"),
    "ATEXT": ("Größe\n'x'", "not ASCII: ä"),
    "ALONG": (LONG, "no place for this"),
    "ANAN": (float("nan"), "left out"),
    "ANONE": (None, "left out"),
    "YES": (True, "a comment that is so long that it does not fit into what is left of the card"),
    "HISTORY": (("one", "two"), ""),
    "COMMENT": ("three", ""),
}
N_ROWS = 400


def packets(n_rows, seed=1):
    """Return rows with more fields than the table, not aligned."""
    generator = np.random.default_rng(seed)
    fields = [("head", "u1", (3,)), ("sequence", ">u2")]
    fields += [(column.name, column.dtype) for column in COLUMNS[1:4]]
    fields += [("between", ">u4")]
    fields += [(column.name, column.dtype) for column in COLUMNS[4:]]
    rows = np.frombuffer(
        generator.bytes(n_rows * np.dtype(fields).itemsize), np.dtype(fields)
    ).copy()
    rows["I"] = generator.normal(size=rows["I"].shape)
    rows["J"] = generator.normal(size=n_rows)
    return rows


def expected(rows):
    """Return the values that the columns should have, by NumPy alone."""
    values = {
        column.name: rows[column.field].astype(rows[column.field].dtype.newbyteorder("="))
        for column in COLUMNS
    }
    values["COUNT"] = values["COUNT"] & 0x3FFF
    values["K"] = np.unpackbits(rows["K"], axis=1)[:, :11].astype(bool)
    return values


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Give a file and the values in it; the rows come in parts, and from every second place."""
    path = tmp_path_factory.mktemp("bulk") / "table[1].fits"
    rows = packets(N_ROWS)
    spread = np.zeros(2 * N_ROWS, rows.dtype)[::2]
    spread[:] = rows
    before = rows.tobytes()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        patch.setattr(fits_bulk, "BUFFER_BYTES", 10_000)
        with BulkWriter(path, "EVENTS", COLUMNS, CARDS) as writer:
            writer.append(rows[:0])
            for start, stop in ((0, 1), (1, 137), (137, 138)):
                writer.append(rows[start:stop])
            writer.append(spread[138:])
            assert writer.n_rows == N_ROWS
    assert rows.tobytes() == before
    return path, expected(rows)


def test_astropy_and_fitsio_read_what_was_written(table):
    path, values = table
    assert os.path.getsize(path) % 2880 == 0
    with fits.open(path) as file:
        file.verify("exception")
        assert len(file) == 2
        header, data = file[1].header, file["EVENTS"].data
        for name, wanted in values.items():
            np.testing.assert_array_equal(data[name], wanted, err_msg=name)
        assert header.comments["TTYPE1"] == "of something"
        assert header.comments["TTYPE5"] == "a description that is far too long for the rest"
        assert file[1].columns["C"].unit == "adu"
        assert file[0].header["ALONG"] == LONG.rstrip()
        assert file[0].header["ATEXT"] == "Gr??e 'x'"
        assert file[0].header["ANUMBER"] == -1.25e-300
        assert file[0].header["YES"] is True
        assert list(file[0].header["HISTORY"]) == ["one", "two"]
        assert not {"ANAN", "ANONE"} & set(file[0].header)
    # CFITSIO takes brackets in names for filters.
    plain = path.with_name("plain.fits")
    os.link(path, plain)
    with fitsio.FITS(str(plain)) as file:
        data = file["EVENTS"].read()
        for name, wanted in values.items():
            if name != "B":  # fitsio gives the bytes of signed ones
                np.testing.assert_array_equal(data[name].reshape(wanted.shape), wanted, name)


def test_cards_of_any_length_are_cards():
    texts = ["x" * n for n in range(1, 90)] + ["'" * n for n in range(1, 90)]
    cards = {f"A{number}": (text, "a comment") for number, text in enumerate(texts)}
    header = fits.Header.fromstring(header_bytes(cards).decode())
    assert [header[name] for name in cards] == texts
    assert header_values(header_bytes(cards)) == dict(zip(cards, texts, strict=True))


def test_columns_come_back_as_they_were(table):
    path, values = table
    with MappedTable(path, "events") as mapped:
        assert mapped.n_rows == N_ROWS
        assert list(mapped.columns) == [column.name for column in COLUMNS]
        for name, wanted in values.items():
            got = mapped.read(name)
            assert got.dtype == wanted.dtype  # native, for NumPy tells byte orders apart
            np.testing.assert_array_equal(got, wanted)
        assert mapped.columns["C"].unit == "adu"
        assert mapped.columns["C"].shape == (2, 3)
    assert read_header(path)["HISTORY"] == ["one", "two"]
    assert read_header(path, "EVENTS")["NAXIS2"] == N_ROWS


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.integers(0, N_ROWS - 1), max_size=30), first=st.integers(-5, N_ROWS + 5))
def test_any_rows_are_read(table, rows, first):
    path, values = table
    with MappedTable(path) as mapped:
        for name in ("C", "K", "D"):
            index = np.array(rows, dtype=np.int64)
            np.testing.assert_array_equal(mapped.read(name, index), values[name][index])
            part = slice(first, first + 50)
            np.testing.assert_array_equal(mapped.read(name, part), values[name][part])


def test_pieces_and_given_arrays_make_no_difference(table, monkeypatch):
    path, values = table
    monkeypatch.setattr(fits_bulk_read, "PIECE_BYTES", 100)
    monkeypatch.setattr(fits_bulk_read, "TOUCHED_BYTES", 1000)
    out = np.zeros((N_ROWS, 2, 3), np.uint16)
    with MappedTable(path) as mapped:
        assert mapped.read("C", out=out) is out
        np.testing.assert_array_equal(out, values["C"])
        backwards = np.arange(N_ROWS)[::-1]
        np.testing.assert_array_equal(mapped.read("J", backwards), values["J"][::-1])
        with pytest.raises(ValueError, match="out is int16"):
            mapped.read("C", out=out.astype(np.int16))
        with pytest.raises(ValueError, match="without step"):
            mapped.read("C", slice(None, None, 2))
        with pytest.raises(ValueError, match="numbers"):
            mapped.read("C", np.ones(N_ROWS, bool))
        with pytest.raises(AstriError, match=f"no row {N_ROWS} in EVENTS: it has {N_ROWS}"):
            mapped.read("C", np.array([0, N_ROWS]))
        with pytest.raises(AstriError, match="no row -1"):
            mapped.read("C", np.array([-1]))
        with pytest.raises(AstriError, match="no column X in EVENTS"):
            mapped.read("X")
    with pytest.raises(ValueError, match="closed"):
        mapped.read("C")


def test_an_empty_table_is_a_table(tmp_path):
    path = tmp_path / "empty.fits"
    with BulkWriter(path, "EVENTS", COLUMNS):
        pass
    with fits.open(path) as file:
        file.verify("exception")
        assert len(file[1].data) == 0
    with MappedTable(path) as mapped:
        assert mapped.read("C").shape == (0, 2, 3)
        assert mapped.read("K", np.array([], dtype=int)).shape == (0, 11)


def test_tables_of_others_are_read(tmp_path):
    path = tmp_path / "theirs.fits"
    columns = [
        fits.Column("TEXT", "5A", array=np.array(["one", "three"])),
        fits.Column("YES", "L", array=np.array([True, False])),
        fits.Column("NULL", "J", null=-1, array=np.array([-1, 2])),
        fits.Column("LENGTH", "PE()", array=np.array([[1.0], [2.0, 3.0]], dtype=object)),
        fits.Column("COMPLEX", "C", array=np.array([1j, 2])),
        fits.Column("BITS", "9X", array=np.eye(9, dtype=bool)[:2]),
    ]
    image = fits.ImageHDU(np.zeros((3, 1000)), name="IMAGE")
    theirs = fits.BinTableHDU.from_columns(columns, name="TABLE")
    fits.HDUList([fits.PrimaryHDU(np.zeros(5)), image, theirs]).writeto(path)
    with MappedTable(path, "TABLE") as mapped:
        assert mapped.read("TEXT").tolist() == [b"one", b"three"]
        assert mapped.read("YES").tolist() == [True, False]
        assert mapped.read("NULL", slice(1, 2)).tolist() == [2]
        assert np.array_equal(mapped.read("BITS"), np.eye(9, dtype=bool)[:2])
        with pytest.raises(AstriError, match=r"NULL of .* has empty values"):
            mapped.read("NULL")
        for name in ("LENGTH", "COMPLEX"):
            with pytest.raises(AstriError, match=rf"{name} of .* does not read"):
                mapped.read(name)
    with pytest.raises(AstriError, match=r"IMAGE of .* is no binary table"):
        MappedTable(path, "IMAGE")
    with pytest.raises(AstriError, match=r"no part EVENTS \(it has 0, IMAGE, TABLE\)"):
        MappedTable(path, "EVENTS")


def test_files_larger_than_four_gigabytes_are_read(tmp_path):
    path = tmp_path / "large.fits"
    columns = (BulkColumn("NUMBER", "u4"), BulkColumn("WIDE", "u1", (1_000_000,)))
    rows = np.zeros(1, [(column.name, column.dtype) for column in columns])
    with BulkWriter(path, "EVENTS", columns) as writer:
        writer.append(rows)
    n_rows = 4500
    with path.open("r+b") as file:
        content = file.read()
        start = len(content) - -(-rows.itemsize // 2880) * 2880
        file.seek(content.index(b"NAXIS2  "))
        file.write(f"NAXIS2  = {n_rows:>20d}".encode())
        file.truncate(start + -(-n_rows * rows.itemsize // 2880) * 2880)  # a hole, no disk
        file.seek(start + (n_rows - 1) * rows.itemsize)
        file.write((0x80000000 + 77).to_bytes(4, "big"))
    with MappedTable(path) as mapped:
        assert mapped.read("NUMBER", slice(n_rows - 1, None)).tolist() == [77]
        assert mapped.read("NUMBER", np.array([n_rows - 1, 1])).tolist() == [77, 2**31]


def test_rows_must_have_the_fields(tmp_path):
    rows = packets(3)
    with BulkWriter(tmp_path / "a.fits", "EVENTS", COLUMNS) as writer:
        with pytest.raises(ValueError, match="no field sequence for the column COUNT"):
            writer.append(np.zeros(3, [("A", "u1")]))
        native = rows.astype(
            [(name, rows.dtype[name].newbyteorder("=")) for name in rows.dtype.names]
        )
        with pytest.raises(ValueError, match=r"the field sequence of the rows is uint16"):
            writer.append(native)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.fits"
    with pytest.raises(ValueError, match="no field"), BulkWriter(path, "E", COLUMNS) as writer:
        writer.append(np.zeros(3, [("A", "u1")]))
    assert not list(tmp_path.iterdir())
    gc.collect()
    n_open = len(os.listdir("/proc/self/fd"))
    real = os.write

    def full(descriptor, data):
        if len(data) > 10_000:
            real(descriptor, data[:5000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with (
            pytest.raises(AstriError, match="is full"),
            BulkWriter(path, "EVENTS", COLUMNS) as writer,
        ):
            writer.append(packets(1000))
    assert not list(tmp_path.iterdir())
    with BulkWriter(path, "EVENTS", COLUMNS) as writer:
        writer.append(packets(1000))
    with pytest.raises(UsageError, match="exists already"), BulkWriter(path, "EVENTS", COLUMNS):
        pass
    with BulkWriter(path, "EVENTS", COLUMNS, overwrite=True):
        pass
    with MappedTable(path) as mapped:
        assert mapped.n_rows == 0
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == n_open


def test_what_is_no_fits_file_is_said(tmp_path, table):
    for name, content, text in (
        ("a.fits.gz", b"\x1f\x8b123", "is compressed.*gunzip"),
        ("empty.fits", b"", "is no FITS file"),
        ("other.fits", b"hello" * 1000, "is no FITS file"),
        ("short.fits", b"SIMPLE  =", "has no end"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(AstriError, match=text):
            MappedTable(path)
    for path in (tmp_path / "none.fits", tmp_path):
        with pytest.raises(AstriError, match="cannot be read"):
            read_header(path)


def damaged(source, target, change):
    """Write a copy of a file whose table header has one card changed."""
    name, card = change
    data = bytearray(source.read_bytes())
    place = data.index(f"{name:8}=".encode(), data.index(b"XTENSION"))
    data[place : place + 80] = f"{name:8}= {card}".ljust(80).encode()
    target.write_bytes(data)
    return target


@pytest.mark.parametrize(
    ("name", "card", "text"),
    [
        ("NAXIS2", "4000000", "is cut off: EVENTS should end at byte .*, and the file has"),
        ("NAXIS2", "-3", "NAXIS2 of .* is -3"),
        ("NAXIS2", "1.5", "NAXIS2 of .* is 1.5"),
        ("NAXIS1", "'x'", "NAXIS1 of .* is 'x'"),
        ("NAXIS1", "91", "its rows 91"),
        ("NAXIS2", "0", "behind EVENTS that belong to nothing"),
        ("NAXIS", "1", "has NAXIS = 1"),
        ("BITPIX", "16", "BITPIX = 16"),
        ("TFIELDS", "5", "have .* bytes and its rows"),
        ("TFORM4", "'7Z'", "TFORM4 = '7Z', which is no form"),
        ("TFORM4", "'99999999999A'", "have .* bytes and its rows"),
        ("TZERO4", "'many'", "TZERO4 .* is 'many', not a number"),
        ("XTENSION", "'IMAGE'", "is no binary table"),
    ],
)
def test_a_header_that_does_not_fit_is_said(table, tmp_path, name, card, text):
    path = damaged(table[0], tmp_path / "b.fits", (name, card))
    with pytest.raises(AstriError, match=text):
        MappedTable(path, 1)


def test_scaled_numbers_are_floats(table, tmp_path):
    path = damaged(table[0], tmp_path / "s.fits", ("TZERO4", "3.5"))
    with MappedTable(path) as mapped:
        got = mapped.read("C")
    np.testing.assert_array_equal(got, table[1]["C"] - 2.0**15 + 3.5)


def test_a_file_that_is_cut_off_is_said(table, tmp_path):
    data = table[0].read_bytes()
    path = tmp_path / "c.fits"
    path.write_bytes(data[:-4000])
    with pytest.raises(AstriError, match="is cut off"):
        MappedTable(path)
    path.write_bytes(data[:6000])
    with pytest.raises(AstriError, match="has no end"):
        MappedTable(path)
    path.write_bytes(data)
    with MappedTable(path) as mapped:
        os.truncate(path, len(data) - 8000)
        with pytest.raises(AstriError, match="became shorter"):
            mapped.read("C")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutilated_files_give_a_sentence_or_values(table, tmp_path, data):
    source, values = table
    content = bytearray(source.read_bytes())
    first_row = content.index(b"END     ", content.index(b"XTENSION")) // 2880 * 2880 + 2880
    for _ in range(data.draw(st.integers(1, 6))):
        # Cards are worth more damage than rows.
        place = data.draw(st.integers(0, first_row - 1))
        content[place] = data.draw(
            st.one_of(st.sampled_from(b"0123456789 '=/ABIJKXPEQ()-."), st.integers(0, 255))
        )
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "mutilated.fits"
    path.write_bytes(content)
    whole = bytes(content) == source.read_bytes()
    try:
        with MappedTable(path) as mapped:
            for name in mapped.columns:
                got = _values_or_sentence(mapped, name)
                if whole:
                    np.testing.assert_array_equal(got, values[name])
                if got is not None:
                    assert got.shape == (mapped.n_rows, *mapped.columns[name].shape)
    except AstriError:
        assert not whole


def _values_or_sentence(mapped, name):
    try:
        return mapped.read(name)
    except AstriError:
        return None
