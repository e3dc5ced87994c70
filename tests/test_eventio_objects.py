"""Our decoders of sim_telarray objects give what eventio gives, or leave the object to it."""

import struct
import traceback
from io import BytesIO

import numpy as np
import pytest
from eventio import SimTelFile
from eventio.header import parse_header_bytes
from eventio.iact.objects import TelescopeData
from eventio.simtel import objects as theirs
from eventio.simtel.simtelfile import parse_array_event, parse_telescope_data
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.io import eventio_objects as ours
from astri_gpu.io import eventio_shower
from astri_gpu.io.eventio_file import EventFile
from astri_gpu.io.eventio_stream import Head
from astri_gpu.kernels.loops import eventio as loops

FILES = [
    "calib_events.simtel.gz",
    "gct_checs_muons.simtel.zst",
    "history_meta_75.simtel.zst",
    "prod4_pixelsettings_v3.gz",
    "test_lasercal_v3.simtel.gz",  # truncated
]
# What the ingest has no use for is left out of our events.
LEFT_OUT = {
    "telescope event": {"header", "image_parameters", "pixel_timing", "pixel_trigger_times"},
    "trigger": {"teltrg_time_by_type", "plane_wavefront_compensation"},
    "shower": {"n_profiles", "profiles", "mc_extra_params"},
    "photoelectrons": {"n_pe", "n_pixels", "non_empty", "pixel_id", "time", "amplitude", "photons"},
    "sums": {f"photons{name}" for name in ("", "_atm", "_atm_3_6", "_atm_qe", "_atm_400")},
    "event": {"stereo_reconstruction", "emitter"},
}


# --- writing EventIO objects ---------------------------------------------------------------------


def an_object(kind, content, *, version=0, ident=0, container=False, extended=False):
    """Return the bytes of an object that lies in another one."""
    word = kind | (version << 20) | (0x20000 if extended else 0)
    length = len(content) | (0x40000000 if container else 0)
    more = struct.pack("<I", 0) if extended else b""
    return struct.pack("<IiI", word, ident, length) + more + content


def unsigned(value):
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return bytes([0x80 | value >> 8, value & 0xFF])
    if value < 0x200000:
        return bytes([0xC0 | value >> 16, value >> 8 & 0xFF, value & 0xFF])
    return bytes([0xE0 | value >> 24, value >> 16 & 0xFF, value >> 8 & 0xFF, value & 0xFF])


def signed(value):
    return unsigned(2 * value if value >= 0 else -2 * value - 1)


def differences(series):
    """Return the differences of every last axis, from 0 on."""
    steps = np.diff(np.asarray(series, dtype=np.int64), axis=-1, prepend=0)
    return b"".join(signed(int(step)) for step in steps.ravel())


def samples(values, *, ident=1 << 12, version=3):
    n_gains, n_pixels, n_samples = values.shape
    content = struct.pack("<ihh", n_pixels, n_gains, n_samples) + differences(values)
    return an_object(2013, content, version=version, ident=ident)


def sums(values, *, ident=1 << 12, version=3):
    content = struct.pack("<ih", values.shape[1], values.shape[0]) + differences(values)
    return an_object(2012, content, version=version, ident=ident)


def pixel_list(pixels, *, version=1, code=0):
    if version == 0:
        content = struct.pack(f"<h{len(pixels)}h", len(pixels), *pixels)
    else:
        content = signed(len(pixels)) + b"".join(signed(pixel) for pixel in pixels)
    return an_object(2027, content, version=version, ident=1_000_000 * code + 1)


def trigger(telescopes, types, *, version=3, ident=7):
    n = len(telescopes)
    content = struct.pack("<iiiiiih", 1, 2, 1_600_000_000, 500, 0, 0, n)
    content += struct.pack(f"<{n}h{n}f", *telescopes, *(0.5 * number for number in telescopes))
    content += struct.pack(f"<h{n}h", n, *telescopes)
    content += b"".join(unsigned(kind) for kind in types)
    times = sum((kind & 15).bit_count() for kind in types if (kind & 15).bit_count() > 1)
    content += struct.pack(f"<{times}f", *range(times))
    content += struct.pack("<fff", 0.1, 1.2, 0.3) if version >= 3 else b""
    return an_object(2009, content, version=version, ident=ident)


def telescope_event(number, *parts):
    header = struct.pack("<iiiiiih", 1, 1, 0, 0, 0, 0, 0) + struct.pack("<ffi", 1.0, 2.0, 3)
    head = an_object(2011, header, version=4, ident=number)
    kind = 2200 + number % 100 + 1000 * (number // 100)
    return an_object(kind, head + b"".join(parts), version=1, ident=7, container=True)


def tracking(number, flags=0x300):
    ident = (number & 0xFF) | ((number & 0x3F00) << 16) | flags
    values = np.arange(2 * (flags & 0x300).bit_count(), dtype="<f4") / 7
    kind = 2100 + number % 100 + 1000 * (number // 100)
    return an_object(kind, values.tobytes(), ident=ident)


def an_array_event(extended=False):
    """Return the bytes inside an array event of three telescopes of different cameras."""
    rng = np.random.default_rng(3)
    waveforms = rng.integers(200, 400, (2, 5, 70))
    waveforms[0, 3, 20:40] += 50_000
    adc = rng.integers(0, 70_000, (2, 40))
    parts = [
        trigger([1, 4, 123], [2, 0x13, 0x41]),
        telescope_event(1, samples(waveforms), pixel_list([0, 3]), pixel_list([2], code=1)),
        telescope_event(4, sums(adc), pixel_list([4, 1, 39, 7], version=0)),
        telescope_event(123, samples(waveforms[:1, :, :1]), an_object(9999, b"unknown!")),
        *(tracking(number) for number in (1, 4, 123)),
        tracking(5, flags=0x100),
    ]
    if extended:
        parts.append(an_object(2222, b"", container=True, extended=True))
    return b"".join(parts)


def electrons(version, flags=0, *, pixels=((1, 2), (7, 3))):
    n_pe = sum(n for _, n in pixels)
    content = struct.pack("<ii", n_pe, 9)
    content += struct.pack("<h", flags) if version > 1 else b""
    content += struct.pack("<i", len(pixels))
    for pixel, n in pixels:
        content += signed(pixel) if version > 2 else struct.pack("<h", pixel)
        content += struct.pack("<i", n) + bytes(4 * n * (2 if flags & 1 else 1))
    if flags & 4:
        content += struct.pack("<ihi", 1, 3, 17)
    return an_object(1208, content, version=version, ident=3)


# --- asking both -------------------------------------------------------------------------------


def buffer(content, before=b"\xff" * 5, after=b"\xff" * 9):
    data = np.frombuffer(before + content + after, dtype=np.uint8).copy()
    return data, len(before), len(before) + len(content)


def head_of(content, kind=2010, version=0, ident=7, **around):
    data, start, stop = buffer(content, **around)
    return data, Head(kind, version, ident, True, start, stop)


def eventio_object(cls, content, **header):
    """Return an object of eventio in memory."""
    whole = an_object(cls.eventio_type, content, container=True, **header)
    made = parse_header_bytes(whole[:12])
    made.content_address = 12
    return cls(made, BytesIO(whole))


def assert_same(found, expected, left_out=()):
    """Check that two trees of dictionaries hold the same, whatever sequences they are made of."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys() - set(left_out)
        for key in found:
            assert_same(found[key], expected[key])
    elif expected is None or isinstance(expected, str):
        assert found == expected
    else:
        found, expected = np.asarray(found), np.asarray(expected)
        if found.ndim > 1:
            assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def assert_same_event(found, expected):
    assert found.keys() == expected.keys() - LEFT_OUT["event"]
    for key, value in found.items():
        other = expected[key]
        if key == "trigger_information":
            assert_same(value, other, LEFT_OUT["trigger"])
        elif key == "mc_shower" and value is not None:
            assert_same(value, other, LEFT_OUT["shower"])
        elif key == "photoelectron_sums":
            assert_same(value, other, LEFT_OUT["sums"])
        elif key == "telescope_events":
            assert list(value) == list(other)
            for number in other:
                assert_same(value[number], other[number], LEFT_OUT["telescope event"])
        elif key == "photoelectrons":
            assert list(value) == list(other)
            for number in other:
                image = {"photoelectrons": other[number]["photoelectrons"]}
                assert_same({"photoelectrons": value[number]["photoelectrons"]}, image)
        else:
            assert_same(value, other)


# --- whole files -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*truncated:UserWarning")
@pytest.mark.filterwarnings("ignore:.*end-of-stream:UserWarning")
@pytest.mark.parametrize("allowed", [None, (1, 4)], ids=["all", "two-telescopes"])
@pytest.mark.parametrize("name", FILES)
def test_every_event_of_every_file(simtel, name, allowed):
    path = simtel(name)
    n_events = 0
    with (
        SimTelFile(path, allowed_telescopes=allowed, zcat=False) as other,
        EventFile(path, allowed_telescopes=allowed) as file,
    ):
        for found, expected in zip(file, other, strict=True):
            assert_same_event(found, expected)
            n_events += 1
        assert_same(file.header, other.header)
        assert len(file.mc_run_headers) == len(other.mc_run_headers) > 0
        assert file.history == other.history
        assert (file.histograms is None) == (other.histograms is None)
    assert n_events > 0


@pytest.mark.parametrize("name", FILES[:4])
def test_nothing_of_the_real_files_is_left_to_eventio(simtel, name, monkeypatch):
    """So that the test above compares our decoders, not eventio with itself."""

    def refuse(self):
        raise AssertionError(f"{self} was parsed by eventio")

    kinds = (theirs.ADCSamples, theirs.ADCSums, theirs.PixelList, theirs.TrackingPosition)
    kinds += (theirs.TriggerInformation, theirs.MCEvent, theirs.MCShower, theirs.MCPhotoelectronSum)
    for kind in kinds:
        monkeypatch.setattr(kind, "parse", refuse)
    with EventFile(simtel(name)) as file:
        assert sum(len(event["telescope_events"]) for event in file) > 0


# --- single objects ------------------------------------------------------------------------------


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("allowed", [None, {1}, {4, 123}, {99}])
def test_array_event(allowed, extended):
    content = an_array_event()
    expected = parse_array_event(eventio_object(theirs.ArrayEvent, content, ident=7), allowed)
    if extended:  # eventio cannot parse an empty telescope event, so add what both pass over
        content += an_object(4711, b"abc", extended=True)
    found = ours.Decoder(allowed).array_event(*head_of(content))
    assert_same_event(found, expected)
    n_telescopes = 3 if allowed is None else len(allowed - {99})
    assert len(found["telescope_events"]) == n_telescopes


@pytest.mark.parametrize("flags", [0, 1, 4, 5])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_true_images(version, flags):
    content = electrons(version, flags if version > 1 else 0)
    expected = parse_telescope_data(eventio_object(TelescopeData, content))
    found = ours.Decoder(None).telescope_data(*head_of(content, kind=1204))
    image = found["photoelectrons"][3]["photoelectrons"]
    np.testing.assert_array_equal(image, expected["photoelectrons"][3]["photoelectrons"])
    assert image.tolist() == [0, 2, 0, 0, 0, 0, 0, 3, 0]
    assert image.dtype == np.int32


def test_many_small_objects_in_one():
    """The table of objects grows with them."""
    content = an_array_event() + an_object(4711, b"") * 5000
    expected = ours.Decoder(None).array_event(*head_of(an_array_event()))
    assert_same_event(ours.Decoder(None).array_event(*head_of(content)), expected)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_shower_and_use(version):
    shower = np.linspace(1, 2, 9 if version else 5, dtype="<f4").tobytes()
    content = struct.pack("<i", 101) + shower + struct.pack("<h", 0)
    # eventio 2.1 reads past the end of version 2, which is version 1 with an object at its end.
    made = eventio_object(theirs.MCShower, content, version=min(version, 1), ident=5)
    made.only_subobjects = False
    found = eventio_shower.mc_shower(*head_of(content, 2020, version, 5))
    assert_same(found, made.parse(), LEFT_OUT["shower"] | (set() if version else HMAX))
    content = struct.pack("<ifff", 3, 1.5, -2.5, 0.25)[: 16 if version == 2 else 12]
    made = eventio_object(theirs.MCEvent, content, version=version, ident=5)
    assert_same(eventio_shower.mc_event(*head_of(content, 2021, version, 5)), made.parse())
    for cut in range(len(content)):
        assert eventio_shower.mc_event(*head_of(content[:cut], 2021, version, 5)) is None


HMAX = {"hmax", "emax", "cmax"}  # which eventio sets to zero where the file has none


@pytest.mark.parametrize("version", [0, 1, 2])
def test_sum_of_photo_electrons(version):
    content = struct.pack("<ii3i3i", 1, 3, 5, 6, 7, 0, 0, 0) + bytes((0, 48, 60)[version])
    made = eventio_object(theirs.MCPhotoelectronSum, content, version=version, ident=5)
    made.only_subobjects = False
    found = eventio_shower.photoelectron_sum(*head_of(content, 2026, version, 5))
    assert_same(found, made.parse(), LEFT_OUT["sums"])
    assert eventio_shower.photoelectron_sum(*head_of(content[:-1], 2026, version, 5)) is None
    assert eventio_shower.photoelectron_sum(*head_of(content, 2026, 3, 5)) is None
    per_pixel = content[:20] + struct.pack("<i", 4) + content[24:]
    assert eventio_shower.photoelectron_sum(*head_of(per_pixel, 2026, version, 5)) is None


@pytest.mark.parametrize(
    "part",
    [
        samples(np.ones((1, 2, 3), int), ident=1 << 12 | 1),
        samples(np.ones((1, 2, 3), int), ident=1 << 12 | 1 << 5),
        samples(np.ones((1, 2, 3), int), ident=1 << 12 | 1 << 10),
        samples(np.ones((1, 2, 3), int), version=2),
        sums(np.ones((1, 3), int), ident=1 << 12 | 2),
        sums(np.ones((1, 3), int), version=4),
        sums(np.ones((1, 1), int)),
        pixel_list([1], version=2),
        an_object(2013, struct.pack("<ihh", 1 << 30, 2, 40) + bytes(9), version=3),
        an_object(2013, struct.pack("<ihh", -1, -2, 40) + bytes(90), version=3),
        an_object(2013, struct.pack("<ihh", 1, 1, 2) + b"\xf8\0\0\0\0\0\0", version=3),
        an_object(2012, struct.pack("<ih", -5, 1) + bytes(9), version=3),
    ],
    ids=[
        *("suppressed", "reduced", "list-known", "old-samples", "sums-suppressed", "new-sums"),
        *("one-pixel", "new-list", "huge", "negative", "seven-byte-code", "negative-sums"),
    ],
)
def test_what_is_not_known_is_left_to_eventio(part):
    rest = [tracking(1), an_object(4711, b"pad")]
    known = b"".join([trigger([1], [2]), telescope_event(1, pixel_list([3])), *rest])
    assert ours.Decoder(None).array_event(*head_of(known)) is not None
    content = b"".join([trigger([1], [2]), telescope_event(1, part), *rest])
    assert ours.Decoder(None).array_event(*head_of(content)) is None


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [tracking(1)],
        [trigger([1], [2], version=1), telescope_event(1), tracking(1)],
        [trigger([1], [2], version=4), telescope_event(1), tracking(1)],
        [trigger([1], [2]), telescope_event(1)],  # without a pointing
        [trigger([1], [2]), telescope_event(1), tracking(1, flags=0)],
        [trigger([1], [2]), an_object(2201, b"", container=True), tracking(1)],
        [trigger([1], [2]), an_object(2201, b"x" * 20), tracking(1)],
        [trigger([1], [2]), an_object(2101, bytes(16), ident=2 | 0x300)],
        [trigger([1], [2]), an_object(2101, bytes(15), ident=1 | 0x300)],
        [trigger([1], [2])[:-1]],
    ],
)
def test_events_that_do_not_fit_are_left_to_eventio(parts):
    assert ours.Decoder(None).array_event(*head_of(b"".join(parts))) is None


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_array_events(data):
    """What we make of damaged bytes is what eventio makes of them, whatever lies around them."""
    content = bytearray(an_array_event())
    for _ in range(data.draw(st.integers(1, 4))):
        # Most bytes are samples: aim at the rest as often.
        place = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(0, 130)))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    content = bytes(content[:cut])
    found = ours.Decoder(None).array_event(*head_of(content))
    again = ours.Decoder(None).array_event(*head_of(content, before=bytes(5), after=bytes(9)))
    assert (found is None) == (again is None)
    if found is None:
        return  # eventio's parser is asked, and says what is wrong if anything is
    assert_same(found, again)
    try:
        expected = parse_array_event(eventio_object(theirs.ArrayEvent, content, ident=7))
    except Exception:
        reason = traceback.format_exc()
        # Only the header of a telescope event may be damaged, because it is not used.
        assert "event['header'] = o.parse()" in reason
    else:
        assert_same_event(found, expected)


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=60), version=st.integers(1, 3), flags=st.integers(0, 7))
def test_damaged_true_images(content, version, flags):
    """Random bytes never reach outside, and a result does not depend on what lies there."""
    whole = electrons(version, flags if version > 1 else 0)
    content = whole[: len(whole) - len(content)] + content
    results = []
    for filler in (b"\0", b"\xff", b"\x01"):
        arguments = head_of(content, kind=1204, before=filler * 7, after=filler * 50)
        results.append(ours.Decoder(None).telescope_data(*arguments))
    assert all((result is None) == (results[0] is None) for result in results)
    if results[0] is not None:
        for result in results[1:]:
            assert_same(result, results[0])


values = st.integers(-(1 << 27), (1 << 27) - 1)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.one_of(st.integers(-64, 63), values), min_size=1, max_size=120))
def test_series_of_differences(steps):
    from eventio.var_int import unsigned_varint_arrays_differential

    content = b"".join(signed(step) for step in steps)
    data, start, stop = buffer(content)
    expected, n_bytes = unsigned_varint_arrays_differential(content, 1, len(steps))
    for dtype in (np.uint16, np.uint32):
        out = np.empty(len(steps), dtype=dtype)
        assert loops.differences(data, start, stop, len(steps), out) == start + n_bytes
        np.testing.assert_array_equal(out, expected[0].astype(dtype))
    out = np.empty(len(steps), dtype=np.int64)
    assert loops.signed_varints(data, start, stop, out) == stop
    assert out.tolist() == steps
    assert loops.differences(data, start, stop - 1, len(steps), out.astype(np.uint32)) == -1
    assert loops.signed_varints(data, start, stop - 1, out) == -1
    # One series of n numbers and n series of one number are different things.
    single = np.empty(len(steps), dtype=np.uint32)
    loops.differences(data, start, stop, 1, single)
    assert single.tolist() == [step % (1 << 32) for step in steps]


def test_places_outside_of_the_buffer_are_refused():
    data = np.zeros(16, dtype=np.uint8)
    out = np.empty(4, dtype=np.uint16)
    assert loops.differences(data, 0, 17, 4, out) == -1
    assert loops.differences(data, 20, 16, 4, out) == -1
    assert loops.differences(data, 0, 16, 3, out) == -1  # 4 numbers are no series of 3
    assert loops.differences(data, 0, 16, 0, out) == -1
    assert loops.unsigned_varints(data, 0, 17, np.empty(1, np.int64)) == -1
    table = np.empty((4, len(loops.COLUMNS)), dtype=np.int64)
    assert loops.sub_objects(data, 0, 17, table) == -1
    assert loops.sub_objects(data, 9, 8, table) == -1
    assert loops.true_image(data, 0, 17, 3, 0, 1, 1, np.zeros(1, np.int32)) == -1
