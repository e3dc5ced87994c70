"""EventIO files as a stream of objects: every packing, any damage, flat memory."""

import gzip
import itertools
import sys
import tracemalloc

import numpy as np
import pytest
import zstandard
from eventio import EventIOFile

from astri_gpu.io.eventio_stream import BUFFER, ObjectStream

MUONS = "gct_checs_muons.simtel.zst"
DAMAGE = "decompress|Error -3|Sync must be"  # what zstd, zlib and eventio say


class Everything:
    def __contains__(self, kind):
        return True


@pytest.fixture(scope="module")
def raw(simtel):
    """Return the unpacked bytes of a real file."""
    with simtel(MUONS).open("rb") as stream:
        return zstandard.ZstdDecompressor().stream_reader(stream).read()


@pytest.fixture(scope="module")
def heads(raw, tmp_path_factory):
    """Return (type, ident, start, stop) of its objects, as eventio finds them."""
    path = tmp_path_factory.mktemp("raw") / "raw.simtel"
    path.write_bytes(raw)
    with EventIOFile(path) as file:
        return [(*about(item), item.address, item.address + item.size) for item in file]


def about(item):
    return item.header.type, item.header.ident if hasattr(item.header, "ident") else item.header.id


def zstd(data):
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data)


def frames(data, n=3):
    """Return data as several zstd frames, cut anywhere, as `pzstd` and `cat` make them."""
    cuts = np.linspace(0, len(data), n + 1).astype(int)
    return b"".join(zstd(data[a:b]) for a, b in itertools.pairwise(cuts))


def members(data):
    half = len(data) // 2
    return gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1)


PACKINGS = {
    "plain": bytes,
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip-members": members,
    "zstd": zstd,
    "zstd-frames": frames,
}


@pytest.fixture(params=[True, False], ids=["isal", "zlib"])
def isal(request, monkeypatch):
    """Read gzip with isal where it is installed, and without it."""
    if request.param:
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.igzip", None)


def write(folder, content):
    path = folder / "file.simtel"
    path.write_bytes(content)
    return path


def read_all(stream):
    """Return (type, ident, content) of all objects, every other one by way of eventio."""
    found = []
    while True:
        head = stream.peek(Everything())
        if head is None:
            break
        content = bytes(stream.data[head.start : head.stop])
        if len(found) % 2:
            item = next(stream)
            assert about(item) == (head.type, head.ident)
            assert item.read() == content
        else:
            stream.skip(head)
        found.append((head.type, head.ident, content))
    return found


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.usefixtures("isal")
def test_all_objects_of_every_packing(raw, heads, tmp_path, packing):
    stream = ObjectStream(write(tmp_path, PACKINGS[packing](raw)))
    found = read_all(stream)
    assert [(kind, ident) for kind, ident, _ in found] == [head[:2] for head in heads]
    for (_, _, content), (_, _, start, stop) in zip(found, heads, strict=True):
        assert content == raw[start:stop]
    with pytest.raises(StopIteration):
        next(stream)
    assert stream.drain() == 0
    stream.close()


def test_objects_that_are_passed_over(raw, heads, tmp_path):
    """Nothing has to be read of an object, and another type than those asked for is not peeked."""
    stream = ObjectStream(write(tmp_path, raw))
    kinds = [about(item) for item in stream]
    assert kinds == [head[:2] for head in heads]
    stream.close()
    stream = ObjectStream(write(tmp_path, raw))
    assert stream.peek({4711}) is None
    assert about(next(stream)) == heads[0][:2]
    stream.close()


def test_bytes_behind_the_last_object_are_counted(raw, tmp_path):
    stream = ObjectStream(write(tmp_path, raw + raw[:12345]))
    first = next(stream)
    left = len(raw) + 12345 - first.address - first.size
    assert stream.drain() == left
    stream.close()


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_a_cut_file_gives_all_that_is_there(raw, heads, tmp_path, packing):
    cut = len(raw) // 2
    if packing == "plain":
        content, complete = raw[:cut], cut
    else:
        content = PACKINGS[packing](raw)
        content = content[: len(content) // 2]
        unpacker = {
            "gzip": lambda: gzip.zlib.decompressobj(31).decompress(content),
            "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress(content),
        }[packing]
        complete = len(unpacker())
    stream = ObjectStream(write(tmp_path, content))
    found = read_all(stream)
    whole = [head for head in heads if head[3] <= complete]
    # zlib keeps back a few bytes that it could not finish.
    assert len(whole) - 1 <= len(found) <= len(whole)
    with pytest.raises(EOFError, match=r"truncated|end-of-stream"):
        read_whole(stream)
    stream.close()


def read_whole(stream):
    """Read objects to the end by way of eventio, which says little about one that is cut off."""
    for item in stream:
        if len(item.read()) < item.size:
            raise EOFError("truncated")


def one(content, kind=4711):
    """Return a top-level object."""
    head = b"\x37\x8a\x1f\xd4" + kind.to_bytes(4, "little") + bytes(4)
    return head + len(content).to_bytes(4, "little") + content


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_every_object_before_the_damage_is_found(tmp_path, packing):
    """A large piece fails as a whole, but what lies in it before the damage is not lost."""
    rng = np.random.default_rng(5)
    objects = [one(rng.integers(0, 16, 100, dtype=np.uint8).tobytes()) for _ in range(20_000)]
    content = bytearray(PACKINGS[packing](b"".join(objects)))
    place = int(0.6 * len(content))
    content[place : place + 64] = bytes(64)
    path = write(tmp_path, bytes(content))
    contents = []
    with EventIOFile(path, zcat=False) as file, pytest.raises(Exception, match=DAMAGE):
        contents.extend(item.read() for item in file)  # object by object
    n_expected = len(contents)
    stream = ObjectStream(path)
    found = read_all(stream)
    assert [content for _, _, content in found] == contents[: len(found)]
    assert 5_000 < n_expected - 1 <= len(found) <= n_expected < 20_000
    with pytest.raises(Exception, match=DAMAGE) as caught:
        read_whole(stream)
    assert not isinstance(caught.value, EOFError)
    stream.close()


def test_memory_stays_flat(raw, tmp_path):
    path = write(tmp_path, zstd(raw * 8))
    stream = ObjectStream(path)
    tracemalloc.start()
    n = 0
    while (head := stream.peek(Everything())) is not None:
        stream.skip(head)
        n += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stream.close()
    assert n > 800
    assert len(stream.data) == BUFFER
    assert peak < 2 * BUFFER


def test_an_object_larger_than_the_buffer(tmp_path):
    content = np.arange(3 * BUFFER, dtype=np.uint32).tobytes()
    path = write(tmp_path, zstd(one(content) + one(b"")))
    stream = ObjectStream(path)
    found = stream.peek(Everything())
    assert bytes(stream.data[found.start : found.stop]) == content
    stream.skip(found)
    last = stream.peek(Everything())
    assert last.start == last.stop
    stream.skip(last)
    assert stream.peek(Everything()) is None
    stream.close()


def test_reading_backwards_is_refused(raw, tmp_path):
    stream = ObjectStream(write(tmp_path, raw))
    item = next(stream)
    item.read()
    assert stream.seek(item.address) == stream.tell() == item.address
    next(stream)
    with pytest.raises(OSError, match="forwards"):
        stream.seek(0)
    with pytest.raises(OSError, match="forwards"):
        stream.seek(0, 2)
    stream.close()
