"""Packet descriptors, and packets that others can decode."""

import binascii
import zlib

import numpy as np
import pytest

from astri_gpu.errors import AstriError
from astri_gpu.packets.decode import column, columns_of, rows_of, sequence_counts
from astri_gpu.packets.descriptor import read_descriptor
from astri_gpu.packets.encode import encode
from tests.packets.made_packets import SMALL, TEL_ID, made_packets

CCSDSPY = {"u": "uint", "i": "int", "f": "float"}


def test_the_layout_follows_from_the_order(astri):
    sci = astri.types["SCI"]
    assert list(astri.types) == ["SCI", "CAL", "HK", "VAR"]
    assert sci.n_bytes == 6 + 18 + 8 + 2368 // 8 + 2 * 2 * 2368 + 4 == 9804
    assert sci.dtype["adc"].shape == (2, 2368)
    assert sci.dtype["adc"].base == np.dtype(">u2")
    assert sci.dtype.names[:4] == ("packet_id", "sequence", "length", "tel_id")
    assert sci.field("adc").unit == "adu"
    assert sci.field("tel_id").fits is None
    assert (astri.telescope, astri.run, astri.counter) == ("tel_id", "run_id", "packet_number")
    with pytest.raises(KeyError):
        sci.field("nothing")


def test_columns_come_back_from_packets(astri, small):
    for descriptor in (astri, small):
        made = made_packets(descriptor, [*descriptor.types] * 3)
        for kind, packet_type in descriptor.types.items():
            packets = b"".join(
                p for p, k in zip(made.packets, made.kinds, strict=True) if k == kind
            )
            rows = rows_of(packet_type, packets)
            found = columns_of(packet_type, rows)
            assert list(found) == [entry.name for entry in packet_type.fields]
            for name, values in made.columns[kind].items():
                np.testing.assert_array_equal(found[name], values)
                assert found[name].dtype == packet_type.field(name).native
            assert sequence_counts(rows).tolist() == [0, 1, 2]


def test_ccsdspy_reads_the_same_values(astri, tmp_path):
    """A packet decoder of others, with a layout from the same descriptor."""
    ccsdspy = pytest.importorskip("ccsdspy", reason="ccsdspy is not installed")
    made = made_packets(astri, [*astri.types] * 4)
    for kind, packet_type in astri.types.items():
        fields = []
        for entry in packet_type.fields:
            if entry.code == "bits":
                options = {"data_type": "uint", "bit_length": 1, "array_shape": entry.n_values}
            else:
                what, size = entry.code[0], 8 * int(entry.code[1:])
                options = {"data_type": CCSDSPY[what], "bit_length": size}
                if entry.shape:
                    options |= {"array_shape": entry.shape, "array_order": "C"}
            make = ccsdspy.PacketArray if entry.shape else ccsdspy.PacketField
            fields.append(make(name=entry.name, **options))
        fields.append(ccsdspy.PacketField(name="sum", data_type="uint", bit_length=32))
        path = tmp_path / f"{kind}.bin"
        whole = [p for p, k in zip(made.packets, made.kinds, strict=True) if k == kind]
        path.write_bytes(b"".join(whole))
        found = ccsdspy.FixedLength(fields).load(str(path), include_primary_header=True)
        for name, values in made.columns[kind].items():
            np.testing.assert_array_equal(np.asarray(found[name]), values, err_msg=name)
        assert set(found["CCSDS_APID"]) == {packet_type.apid}
        assert set(found["CCSDS_VERSION_NUMBER"]) == set(found["CCSDS_PACKET_TYPE"]) == {0}
        assert set(found["CCSDS_SECONDARY_FLAG"]) == {1}
        assert set(found["CCSDS_SEQUENCE_FLAG"]) == {3}
        assert found["CCSDS_SEQUENCE_COUNT"].tolist() == [0, 1, 2, 3]
        assert set(found["CCSDS_PACKET_LENGTH"]) == {packet_type.n_bytes - 7}
        assert found["sum"].tolist() == [zlib.crc32(packet[:-4]) for packet in whole]


def test_the_checksum_of_ccsds(tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text(SMALL + "checksum: crc16\n")
    made = made_packets(read_descriptor(path), ["HK"])
    packet = made.packets[0]
    assert int.from_bytes(packet[-2:], "big") == binascii.crc_hqx(packet[:-2], 0xFFFF)


def test_bits_are_packed_from_the_highest(small):
    made = made_packets(small, ["SCI"])
    columns = made.columns["SCI"] | {"hit": np.arange(11)[None] == 2}
    rows = rows_of(small.types["SCI"], encode(small.types["SCI"], columns))
    assert rows["hit"].tolist() == [[0x20, 0]]
    assert column(small.types["SCI"], rows, "hit").tolist() == [[k == 2 for k in range(11)]]


def test_inputs_are_not_changed_and_one_value_serves_all(small):
    columns = dict(made_packets(small, ["HK"] * 3).columns["HK"])
    before = {name: values.copy() for name, values in columns.items()}
    columns["unit"] = TEL_ID
    rows = rows_of(small.types["HK"], encode(small.types["HK"], columns))
    assert rows["unit"].tolist() == [TEL_ID] * 3
    for name, values in before.items():
        np.testing.assert_array_equal(before[name], values)


def test_no_packets_are_no_packets(small):
    columns = {name: v[:0] for name, v in made_packets(small, ["HK"]).columns["HK"].items()}
    packets = encode(small.types["HK"], columns)
    assert packets.shape == (0, small.types["HK"].n_bytes)
    assert len(rows_of(small.types["HK"], packets)) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"unit": np.full(3, 256)}, "'unit' of HK packets has values from 256 to 256, and u1"),
        ({"unit": np.full(3, -1)}, "from -1 to -1"),
        ({"unit": np.full(3, 0.5)}, "values of float64, which u1 cannot hold"),
        ({"unit": np.full((3, 2), 1)}, r"shape \(3, 2\): give \(3,\)"),
        ({"unit": np.full(4, 1)}, r"different lengths \(3, 4\)"),
        ({"voltage": np.array(["a"] * 3)}, "cannot hold"),
        ({"nothing": np.zeros(3)}, "missing or unknown: nothing"),
        ({"unit": None}, "missing or unknown: unit"),
    ],
)
def test_columns_that_do_not_fit(small, change, text):
    columns = made_packets(small, ["HK"] * 3).columns["HK"] | change
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(AstriError, match=text):
        encode(small.types["HK"], columns)


def test_bits_have_to_be_booleans(small):
    columns = made_packets(small, ["SCI"]).columns["SCI"] | {"hit": np.ones((1, 11), int)}
    with pytest.raises(AstriError, match=r"'hit' .* int64: give booleans"):
        encode(small.types["SCI"], columns)


def test_bytes_that_are_no_whole_packets(small):
    with pytest.raises(AstriError, match="13 bytes are no whole number of HK packets of"):
        rows_of(small.types["HK"], bytes(13))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("name: small", "nome: small", "the file lacks name"),
        ("name: small", "name: small\nextra: 1", "unknown key extra"),
        ("pixel: 11", "pixel: eleven", "SCI.fields.hit has the size 'pixel'"),
        ("shape: [3]", "shape: [0]", "has the size 0"),
        ("shape: [3]", "shape: 3", "has the shape 3"),
        ("type: f4", "type: f3", r"types.HK.fields.voltage has the type 'f3': use one of u1"),
        ("apid: 0x7\n", "apid: 0x234\n", "apid 0x234 is used twice"),
        ("apid: 0x7\n", "apid: 0x7ff\n", "apid is 2047: give a number from 0 to 2046"),
        ("apid: 0x7\n", "apid: yes\n", "apid is True"),
        ("  HK:", "  TEC:", "types.TEC is no kind of packet: use SCI, CAL, HK, VAR"),
        ("name: voltage", "name: sec", "two fields or columns 'sec'"),
        ("fits: VOLT", "fits: SEC", r"two fields or columns 'voltage' \(SEC\)"),
        ("fits: VOLT", "fits: SEQCNT", "two fields or columns"),
        ("fits: VOLT", "fits: volt", "FITS column 'volt'"),
        ("name: voltage", "name: Voltage", "has the name 'Voltage'"),
        ("telescope: unit", "telescope: adc", "telescope is 'adc', which is no common field"),
        ("shape: [3]", "shape: [40000]", "have 80077 bytes, more than the 65542"),
        ("name: small", "name: small\nchecksum: md5", "checksum is 'md5': use one of crc32"),
        ("name: small", "name: [", "is not YAML"),
        ("common:", "common: 3\nold:", "unknown key old"),
        ("dims: {pixel: 11, gain: 2}", "dims: 3", "dims is no mapping"),
    ],
)
def test_descriptors_that_are_none(tmp_path, old, new, text):
    assert old in SMALL
    path = tmp_path / "bad.yaml"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(AstriError, match=text):
        read_descriptor(path)


@pytest.mark.parametrize("contents", ["", "3", "[1, 2]", "common: []\nname: x\ntypes: {}\n"])
def test_files_that_are_no_descriptors(tmp_path, contents):
    path = tmp_path / "bad.yaml"
    path.write_text(contents)
    with pytest.raises(AstriError, match=r"bad.yaml .*: "):
        read_descriptor(path)


def test_descriptors_that_are_not_there(tmp_path):
    with pytest.raises(AstriError, match="no packet descriptor 'astri_v7': give one of astri_gpu"):
        read_descriptor("astri_v7")
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(AstriError, match="cannot be read"):
        read_descriptor(path)
