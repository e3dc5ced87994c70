"""Packet files, whole and mutilated: no good packet is lost, and all bytes are accounted for."""

import tracemalloc
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.errors import AstriError
from astri_gpu.packets.account import (
    CHECKSUM,
    DIFFERING,
    HEADER,
    IDENTICAL,
    OTHER_RUN,
    OTHER_TELESCOPE,
    TRUNCATED,
    UNKNOWN,
    UNREADABLE,
)
from astri_gpu.packets.reader import RawReader
from tests.packets.made_packets import (
    RUN_ID,
    START_S,
    TEL_ID,
    made_packets,
    mixed_kinds,
    packets_of_rows,
)


def read(path, descriptor, data=None, **options):
    """Return packets (bytes, by kind in order), pieces (place, bytes, reason, kind), account."""
    if data is not None:
        path.write_bytes(data)
    packets, pieces = {kind: [] for kind in descriptor.types}, []
    options = {"tel_id": TEL_ID, "run_id": RUN_ID, **options}
    with RawReader(path, descriptor, **options) as reader:
        for block in reader.blocks():
            for kind, rows in block.rows.items():
                packets[kind] += packets_of_rows(descriptor, {kind: rows})
            for bad in block.bad:
                if bad.joined:
                    place, before, reason, kind = pieces[-1]
                    assert place + len(before) == bad.place
                    pieces[-1] = place, before + bytes(bad.data), reason, kind
                else:
                    pieces.append((bad.place, bytes(bad.data), bad.reason, bad.kind))
    return packets, pieces, reader.account


def reasons(pieces):
    return [reason for _, _, reason, _ in pieces]


@pytest.fixture(scope="module")
def made(small):
    """Return 40 packets of the small format."""
    return made_packets(small, mixed_kinds(small, 40))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.raw"


def of_kind(made, kind):
    return [p for p, k in zip(made.packets, made.kinds, strict=True) if k == kind]


def test_a_good_file_is_read_whole(path, small, made):
    packets, pieces, account = read(path, small, made.data)
    assert packets == {kind: of_kind(made, kind) for kind in small.types}
    assert pieces == []
    assert account.n_kept == 40
    assert account.n_missing == 0
    assert account.n_quarantined == 0
    assert account.warnings(10) == []
    assert account.missing == {"HK": 0, "SCI": 0}


def test_the_real_format(path, astri):
    made = made_packets(astri, ["SCI", "HK", "SCI", "VAR", "CAL"])
    packets, pieces, account = read(path, astri, made.data, block_bytes=5000)
    assert packets == {kind: of_kind(made, kind) for kind in astri.types}
    assert pieces == []
    assert account.n_bytes == len(made.data)


def test_an_empty_file_holds_nothing(path, small):
    packets, pieces, account = read(path, small, b"")
    assert not any(packets.values())
    assert pieces == []
    assert account.n_bytes == 0


def test_a_file_that_is_not_there(tmp_path, small):
    with (
        pytest.raises(AstriError, match=r"missing.raw cannot be read \(No such file"),
        RawReader(tmp_path / "missing.raw", small, tel_id=1, run_id=1),
    ):
        pass


def flipped(packet, place=-1):
    """Return a packet with a bit of one byte turned."""
    changed = bytearray(packet)
    changed[place] ^= 0x10
    return bytes(changed)


def test_what_is_wrong_is_said_for_each_packet(path, small, made):
    p, kinds = made.packets, made.kinds
    other_run = made_packets(small, ["SCI"], run_id=RUN_ID + 1).data
    other_tel = made_packets(small, ["HK"], tel_id=TEL_ID + 1).data
    unknown = bytearray(p[9])
    unknown[1] ^= 0x40  # of the APID
    data = b"".join(
        [
            p[0],
            flipped(p[1]),
            flipped(p[2], 5),  # the length
            p[3],
            other_run,
            p[4],
            p[4],
            other_tel,
            b"no packet at all",
            p[5],
            p[6][:-3],
            p[7],
            bytes(unknown),
            p[10],
            made_packets(small, [kinds[10]], seed=99, first=10).data,
            p[11][:7],
        ]
    )
    _, pieces, account = read(path, small, data)
    assert reasons(pieces) == [
        CHECKSUM,
        HEADER,
        OTHER_RUN,
        IDENTICAL,
        OTHER_TELESCOPE,
        UNREADABLE,
        TRUNCATED,
        UNKNOWN,
        DIFFERING,
        TRUNCATED,
    ]
    assert account.n_kept == 6
    assert account.n_missing == 11 - 6
    assert account.quarantined[CHECKSUM] == {kinds[1]: 1}
    texts = " ".join(account.warnings(10))
    assert "1 packet with a wrong checksum" in texts
    assert "5 packets missing" in texts
    counts = account.as_dict()["types"]
    assert counts[kinds[1]]["checksum"] == 1
    assert counts["SCI"]["another_run"] == 1
    assert counts["HK"]["another_telescope"] == 1


def test_packets_out_of_order_are_kept_where_they_are(path, small, made):
    order = [0, 1, 5, 2, 3, 4, 6, 8, 7, 9]
    packets, pieces, account = read(path, small, b"".join(made.packets[k] for k in order))
    assert packets["SCI"] == [made.packets[k] for k in order if made.kinds[k] == "SCI"]
    assert account.out_of_order.total() == 4
    assert account.n_missing == 0
    assert pieces == []
    assert account.backwards == 0  # the clock is right


def retimed(small, made, seconds=None, nanoseconds=None):
    """Return the SCI packets of a file with other times, numbered from 0."""
    from astri_gpu.packets.encode import encode

    columns = dict(made.columns["SCI"])
    n = len(columns["count"])
    columns["count"] = np.arange(n)
    if seconds is not None:
        columns["sec"] = np.resize(seconds, n)
    if nanoseconds is not None:
        columns["nanosec"] = np.resize(nanoseconds, n)
    return encode(small.types["SCI"], columns).tobytes(), n


def test_times_are_judged(path, small, made):
    data, n = retimed(small, made, nanoseconds=[1_000_000_000, 5])
    packets, _, account = read(path, small, data)
    assert len(packets["SCI"]) == n
    assert account.bad_nanoseconds["SCI"] == (n + 1) // 2
    steps = np.full(n, START_S)
    steps[4:] += 50
    steps[8:] -= 20
    data, n = retimed(small, made, seconds=steps, nanoseconds=7)
    _, _, account = read(path, small, data, stop_s=START_S + 40)
    assert (account.gaps, account.backwards, account.outside) == (1, 1, 4)
    texts = account.warnings(10)
    assert "1 time before the one of the packet before" in texts
    assert "1 step of time of more than 10 s" in texts


@pytest.mark.parametrize(("bits", "n", "cut"), [(24, 150, True), (29, 150, False), (24, 50, False)])
def test_nanoseconds_of_24_bits_are_noticed(path, small, bits, n, cut):
    made = made_packets(small, ["SCI"] * n)
    rng = np.random.default_rng(1)
    data, _ = retimed(small, made, nanoseconds=rng.integers(0, 1 << bits, n))
    _, _, account = read(path, small, data)
    assert account.truncated_nanoseconds is cut
    assert any("24 bits" in text for text in account.warnings(10)) is cut


def test_counts_of_a_type_go_on_after_16383(path, small):
    made = made_packets(small, ["SCI"] * 6, first=16381)
    gap = made.packets[0] + b"".join(made.packets[4:])
    _, _, account = read(path, small, gap)
    assert account.missing["SCI"] == 3
    assert account.n_missing == 16381 + 3  # the first packet of a run has the number 0


def test_a_packet_in_a_packet_that_is_broken_is_found(path, small, made):
    outer, inner = made.packets[1], made.packets[2]
    data = made.packets[0] + outer[:9] + inner + outer[9:] + made.packets[3]
    packets, pieces, _ = read(path, small, data)
    assert sorted(p for found in packets.values() for p in found) == sorted(
        made.packets[k] for k in (0, 2, 3)
    )
    assert [len(data) for _, data, _, _ in pieces] == [9, len(outer) - 9]


def test_damage_costs_no_more_than_its_length(path, small):
    """Headers without packets at every sixth byte: each is tried, and the rest is found."""
    made = made_packets(small, ["SCI"] * 3)
    fake = made.packets[0][:6] * 2000
    packets, _, account = read(path, small, made.packets[0] + fake + made.packets[1])
    assert packets["SCI"] == list(made.packets[:2])
    assert account.quarantined_bytes.total() == len(fake)


def test_memory_does_not_grow_with_the_file(path, astri):
    made = made_packets(astri, ["SCI", "HK", "SCI"] * 4, seed=1)
    path.write_bytes(made.data * 30)  # 2.4 MB; all but the first tenth are repeats
    tracemalloc.start()
    try:
        with RawReader(path, astri, tel_id=TEL_ID, run_id=RUN_ID, block_bytes=50_000) as reader:
            n_bad = sum(len(block.bad) for block in reader.blocks())
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    assert n_bad == 12 * 29
    assert reader.account.quarantined[IDENTICAL] == {"SCI": 8 * 29, "HK": 4 * 29}


def test_numbers_that_are_far_too_high(path, small):
    """A packet is good by its checksum, whatever number it has."""
    first, last = (made_packets(small, ["SCI"], first=k).data for k in (0, 4_000_000_000))
    packets, pieces, account = read(path, small, first + last)
    assert packets["SCI"] == [first, last]
    assert pieces == []
    assert account.n_missing == 3_999_999_999


# Any damage ----------------------------------------------------------------------------------


@st.composite
def mutilations(draw):
    """Return instructions that make a damaged file out of packets."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255)),
                st.tuples(st.just("cut"), st.integers(0, 10**6), st.integers(1, 200)),
                st.tuples(st.just("insert"), st.integers(0, 10**6), st.binary(max_size=120)),
                st.tuples(st.just("drop"), st.integers(0, 10**6), st.just(0)),
                st.tuples(st.just("repeat"), st.integers(0, 10**6), st.integers(0, 10**6)),
                st.tuples(st.just("swap"), st.integers(0, 10**6), st.integers(0, 10**6)),
                st.tuples(st.just("length"), st.integers(0, 10**6), st.integers(0, 65535)),
                st.tuples(st.just("header"), st.integers(0, 10**6), st.binary(max_size=30)),
                st.tuples(st.just("other"), st.integers(0, 10**6), st.integers(0, 3)),
                st.tuples(st.just("truncate"), st.integers(0, 300), st.just(0)),
            ),
            max_size=8,
        )
    )


def mutilated(made, orders, other):
    """Return the bytes of a file after damage."""
    packets = list(made.packets)
    for what, place, value in orders:  # whole packets first: the numbers mean packets then
        k = place % len(packets)
        if what == "drop" and len(packets) > 1:
            del packets[k]
        elif what == "repeat":
            packets.insert(value % len(packets), packets[k])
        elif what == "swap":
            other_place = value % len(packets)
            packets[k], packets[other_place] = packets[other_place], packets[k]
        elif what == "length":
            packets[k] = packets[k][:4] + value.to_bytes(2, "big") + packets[k][6:]
        elif what == "other":
            packets.insert(k, other[value])
    data = bytearray(b"".join(packets))
    for what, place, value in orders:
        k = place % (len(data) + 1)
        if what == "flip" and k < len(data):
            data[k] ^= value
        elif what == "cut":
            del data[k : k + value]
        elif what == "insert":
            data[k:k] = value
        elif what == "header":
            data[k:k] = made.packets[0][:6] + value
        elif what == "truncate" and place:
            del data[-place:]
    return bytes(data)


@given(orders=mutilations(), block_bytes=st.integers(1, 4000), number=st.integers(1, 25))
@settings(max_examples=120, deadline=None)
def test_no_good_packet_is_lost(small, made_of, other, path_of, orders, block_bytes, number):
    made = made_of(number)
    data = mutilated(made, orders, other)
    packets, pieces, account = read(path_of, small, data)

    # Every byte is in a packet that was kept or in the quarantine, at its place.
    assert account.n_bytes == len(data)
    for place, piece, _, _ in pieces:
        assert data[place : place + len(piece)] == piece
    found = [packet for kind in packets for packet in packets[kind]]
    assert sum(map(len, found)) + sum(len(piece) for _, piece, _, _ in pieces) == len(data)
    between = bytearray(data)
    for place, piece, _, _ in reversed(pieces):
        del between[place : place + len(piece)]
    assert Counter(between) == Counter(b"".join(found))

    # Every packet of the run whose bytes are there is kept, once, and no other.
    assert Counter(found) == Counter({p: 1 for p in set(made.packets) if p in data})
    assert account.n_kept == len(found)
    assert account.quarantined_bytes.total() == sum(len(piece) for _, piece, _, _ in pieces)
    assert account.n_quarantined == len(pieces)

    # The size of the blocks makes no difference.
    again = read(path_of, small, None, block_bytes=block_bytes)
    assert again[:2] == (packets, pieces)
    assert again[2].as_dict() == account.as_dict()


@given(data=st.binary(max_size=600), block_bytes=st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_garbage_is_quarantined(small, path_of, data, block_bytes):
    packets, pieces, account = read(path_of, small, data, block_bytes=block_bytes)
    assert not any(packets.values())
    assert b"".join(piece for _, piece, _, _ in pieces) == data == path_of.read_bytes()
    assert account.n_kept == 0


@given(numbers=st.lists(st.integers(0, 12), max_size=30))
@settings(max_examples=80, deadline=None)
def test_numbers_in_any_order(numbers):
    """The compact record of numbers does what a dictionary would."""
    from astri_gpu.packets.account import Numbers

    record, plain = Numbers(), {}
    for k, number in enumerate(numbers):
        check = zlib.crc32(bytes([number, k % 2]))
        if number in plain:
            expected = IDENTICAL if plain[number] == check else DIFFERING
        else:
            expected = None
            plain[number] = check
        assert record.add(number, check) == expected
    assert record.n_missing == max(plain, default=-1) + 1 - len(plain)
    assert record.highest == max(plain, default=-1)


@pytest.fixture(scope="module")
def made_of(small):
    """Return a function from a number to that many packets of the small format."""
    ready = {n: made_packets(small, mixed_kinds(small, n, seed=n), seed=n) for n in range(1, 26)}
    return ready.__getitem__


@pytest.fixture(scope="module")
def other(small):
    """Return packets that are whole but not of this run, telescope or format."""
    foreign = made_packets(small, ["SCI"], run_id=1).packets[0]
    head = 0x0FFF.to_bytes(2, "big") + b"\xc0\x00" + (30).to_bytes(2, "big")
    return [foreign, made_packets(small, ["HK"], tel_id=9).packets[0], head + bytes(31), bytes(50)]


@pytest.fixture(scope="module")
def path_of(tmp_path_factory):
    return tmp_path_factory.mktemp("mutilated") / "x.raw"
