"""Hostile, damaged and unfinished files: nothing runs, and one sentence says what is wrong."""

import os
import threading
import warnings

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.errors import AstriError
from astri_gpu.io import ctapipe_import_events
from astri_gpu.stages import ingest

tables = pytest.importorskip("tables", reason="PyTables (the extra `exchange`) is not installed")

STEREO = "test_lasercal_v3.simtel.gz"  # 4 telescopes, 3 events; the file is truncated
MUONS = "gct_checs_muons.simtel.zst"  # 1 telescope, 20 events
TRIGGER = "/dl1/event/subarray/trigger"
IMAGES = "/dl1/event/telescope/images"


def set_root(file, name, value):
    """Set an attribute of the file whose name is no Python name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=tables.NaturalNameWarning)
        file.root._v_attrs[name] = value


def retyped(file, path, column, dtype, values, **attrs):
    """Write a table again with another type of one column."""
    node = file.get_node(path)
    rows, names = node.read(), node.dtype.names
    kept = {name: node._v_attrs[name] for name in node._v_attrs._f_list("user")}
    fields = [(name, dtype if name == column else rows.dtype[name]) for name in names]
    new = np.empty(len(rows), dtype=fields)
    for name in names:
        new[name] = values if name == column else rows[name]
    file.remove_node(path)
    parent, _, name = path.rpartition("/")
    table = file.create_table(parent, name, obj=new)
    position = names.index(column)
    for key, value in kept.items():
        table._v_attrs[key] = value
    for key, value in attrs.items():
        table._v_attrs[f"CTAFIELD_{position}_{key}"] = value


class Attack:
    """Something that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.makedirs, (self.path, 0o777, True)


@pytest.mark.peers
def test_nothing_is_ever_unpickled(copied, stored, tmp_path):
    import pickle

    def payload(name):
        data = pickle.dumps(Attack(tmp_path / f"attack_{name}"), protocol=0)
        assert data.endswith(b".")
        return np.bytes_(data)

    def attacked(file):
        objects = file.create_vlarray(
            "/dl2/event/subarray", "classification", tables.ObjectAtom(), filters=tables.Filters()
        )
        objects.append(Attack(tmp_path / "attack_array"))
        set_root(file, "CTA CONTACT NAME", payload("root"))
        file.get_node(TRIGGER)._v_attrs["CTAFIELD_4_ENUM"] = payload("enum")
        file.get_node(TRIGGER)._v_attrs["NOTE"] = payload("table")
        for number, place in enumerate(("/dl1", "/dl1/event", IMAGES, TRIGGER)):
            node = file.get_node(place)
            for name in ("FILTERS", "TITLE", "FIELD_0_FILL"):  # PyTables has its own use for them
                node._v_attrs._g_setattr(node, name, payload(f"{name.lower()}_{number}"))
        file.root._v_attrs["PYTABLES_FORMAT_VERSION"] = "1.5"

    def attacks():
        return sorted(path.name for path in tmp_path.glob("attack_*"))

    path = copied(attacked)
    for name in attacks():  # of writing it
        (tmp_path / name).rmdir()
    with tables.open_file(str(path)) as file:  # what happens to a careless reader
        assert file.get_node(TRIGGER).nrows
    assert {"attack_enum", "attack_root", "attack_table"} <= set(attacks())
    for name in attacks():
        (tmp_path / name).rmdir()

    # Attributes of PyTables itself that ask for pickles make the file unreadable.
    with pytest.raises(AstriError, match="never unpickled"):
        stored(path)
    with tables.open_file(str(path), "a") as file:
        file.root._v_attrs["PYTABLES_FORMAT_VERSION"] = "2.1"
    for name in attacks():
        (tmp_path / name).rmdir()
    assert stored(path).attrs["n_events"] == 3
    assert attacks() == []


def test_other_threads_unpickle_what_they_like():
    """The refusal is one of the thread that reads, and ends with the reading."""
    from tables import attributeset

    from astri_gpu.io.ctapipe_import_file import no_pickles

    data = b"I1\n."
    answers = []

    def elsewhere():
        answers.append(attributeset.pickle.loads(data))

    with no_pickles():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="never unpickled"):
            attributeset.pickle.loads(data)
    assert answers == [1]
    assert attributeset.pickle.loads(data) == 1
    assert attributeset.pickle.UnpicklingError.__name__ == "UnpicklingError"


@pytest.mark.peers
@pytest.mark.parametrize("size", [96, 10_000, -1])
def test_unfinished_files(made, stored, tmp_path, size):
    """What a killed ctapipe-process leaves (96 bytes), and files cut short."""
    path = tmp_path / "cut.h5"
    path.write_bytes(made(STEREO).read_bytes()[:size])
    with pytest.raises(AstriError, match=r"damaged or unfinished .*killed leaves such files") as e:
        stored(path)
    assert "\n" not in str(e.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cut.h5"]


@pytest.mark.peers
def test_damaged_bytes_stop_or_keep_the_events_before(copied, made, stored, monkeypatch):
    path = copied(name=MUONS)
    with tables.open_file(str(path)) as file:
        node = file.get_node(f"{IMAGES}/tel_001")
        n_rows, chunk = node.nrows, node.chunkshape[0]
        place = int(node.chunk_info((chunk,)).offset)
    assert chunk < n_rows
    data = bytearray(path.read_bytes())
    data[place + 5000 : place + 5100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(AstriError, match=r"images/tel_001 cannot be read"):
        stored(path)
    with pytest.raises(AstriError, match="there is nothing to write"):
        stored(path, "on_error=keep")  # all events are read in one block
    monkeypatch.setattr(ctapipe_import_events, "IMAGES_PER_BLOCK", 3)
    part, whole = stored(path, "on_error=keep"), stored(made(MUONS))
    assert part.attrs["truncated"]
    n_images = part.attrs["n_images"]
    assert 3 <= n_images <= chunk
    np.testing.assert_array_equal(
        part.read("dl1/image/CHEC/charge"), whole.read("dl1/image/CHEC/charge")[:n_images]
    )


def change_rows(path, change):
    """Return a change of a file that replaces the rows of one table."""

    def apply(file):
        node = file.get_node(path)
        rows = change(node.read())
        node.remove_rows(0, node.nrows)
        node.append(rows)
        node.flush()

    return apply


TELESCOPES = "/dl1/event/telescope/trigger"
TEL = "/dl1/event/telescope/images/tel_001"
REFUSED = {
    "order": (
        change_rows(TELESCOPES, lambda rows: rows[::-1].copy()),
        "there twice or not in the order",
    ),
    "orphan": (
        change_rows(TELESCOPES, lambda rows: (rows["event_id"].__setitem__(0, 12345), rows)[1]),
        "are of no event of the trigger table.*event 12345",
    ),
    "lost": (change_rows(TEL, lambda rows: rows[1:]), "not of the same events"),
    "twice": (
        change_rows(TRIGGER, lambda rows: np.concatenate([rows, rows[:1]])),
        "event 100 of observation .* twice: was one file merged twice",
    ),
    "shower twice": (
        change_rows("/simulation/event/subarray/shower", lambda rows: rows[[0, 0, 1, 2]]),
        "shower .*there twice",
    ),
    "large": (
        lambda file: retyped(file, TRIGGER, "event_id", "u8", [2**63 + 1, 1, 2]),
        "more than 63 bits",
    ),
    "text": (lambda file: retyped(file, TRIGGER, "event_id", "S4", b"one"), "not whole numbers"),
    "mask": (
        lambda file: retyped(file, TRIGGER, "tels_with_trigger", ("?", (2,)), True),
        "tels_with_trigger of .* is .2,. for 4 telescopes",
    ),
    "no trigger": (lambda file: file.remove_node(TRIGGER), "has no table /dl1/event/subarray"),
    "no camera": (
        lambda file: file.remove_node("/configuration/instrument/telescope/camera/geometry_0"),
        "has no table .*geometry_0",
    ),
    "shape": (
        lambda file: retyped(file, TEL, "image", ("f4", (10,)), 0.0),
        r"image of .* is \(10,\), but its telescope asks for",
    ),
    "unit": (
        lambda file: file.get_node("/simulation/event/subarray/shower")._v_attrs.__setattr__(
            "CTAFIELD_2_UNIT", "deg"
        ),
        "has the unit 'deg', which is no 'TeV'",
    ),
    "old tables": (
        lambda file: file.rename_node(TEL, "LST_LSTCam"),
        "which is not of one telescope",
    ),
    "unknown telescope": (lambda file: file.rename_node(TEL, "tel_077"), "data of telescope 77"),
    "other telescope": (
        lambda file: (
            file.rename_node(f"{IMAGES}/tel_001", "tel_001x")
            or file.rename_node(f"{IMAGES}/tel_001x", "tel_001")
            or change_rows(TEL, lambda rows: (rows["tel_id"].__setitem__(0, 2), rows)[1])(file)
        ),
        "has rows of other telescopes",
    ),
    "version": (
        lambda file: set_root(file, "CTA PRODUCT DATA MODEL VERSION", "v3.0.0"),
        "has version v3.0.0 of ctapipe's data model; v4.0.0 to v7.1.0 are read",
    ),
    "none of ctapipe": (
        lambda file: file.root._v_attrs.__delattr__("CTA PRODUCT DATA MODEL VERSION"),
        "an HDF5 file, but none of ctapipe",
    ),
    "pixels": (
        lambda file: file.get_node(
            "/configuration/instrument/telescope/camera/geometry_0"
        )._v_attrs.__setattr__("PIX_TYPE", "triangle"),
        "pixels of the unknown shape 'triangle'",
    ),
}


@pytest.mark.peers
@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(what, copied, stored, tmp_path):
    change, text = REFUSED[what]
    path = copied(change)
    with pytest.raises(AstriError, match=text) as error:
        stored(path)
    assert "\n" not in str(error.value)
    assert str(error.value)[-1] in ".?"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["changed.h5"]


def test_without_pytables_there_is_one_sentence(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tables", None)
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    arguments = [f"input='{path}'", f"output='{tmp_path / 'o.zarr'}'", "progress=false"]
    with pytest.raises(AstriError, match=r"PyTables, which is not installed: pip install"):
        ingest.run(compose("ingest", arguments))
