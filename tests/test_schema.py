"""The schema describes every stored column once, in words and units that other tools understand."""

import astropy.units as u
import numpy as np
import pytest

from astri_gpu.errors import AstriError
from astri_gpu.schema import TABLES, column, table_key

COLUMNS = [
    pytest.param(key, entry, id=f"{key}/{name}")
    for key, table in TABLES.items()
    for name, entry in table.items()
]


@pytest.mark.parametrize(("key", "entry"), COLUMNS)
def test_column_is_complete(key, entry):
    u.Unit(entry.unit)
    np.dtype(entry.dtype)
    assert entry.description
    assert entry.dims
    assert TABLES[key][entry.name] is entry


@pytest.mark.parametrize("key", [key for key in TABLES if key.endswith("image")])
def test_image_tables_refer_to_events_and_telescopes(key):
    assert list(TABLES[key])[:2] == ["event_index", "tel_id"]


@pytest.mark.parametrize("key", ["dl0/event", "simulation/event", "dl2/event"])
def test_event_tables_carry_run_and_event(key):
    assert list(TABLES[key])[:2] == ["obs_id", "event_id"]


def test_parameters_have_the_types_of_the_spec():
    for name, entry in TABLES["dl1/image"].items():
        counts = name.startswith(("morphology_n", "n_saturated")) or "_num_" in name
        if counts:
            assert entry.dtype == "i4"
        elif name not in ("event_index", "tel_id", "image_flags", "mask"):
            assert entry.dtype == "f4"
    assert TABLES["dl1/image"]["image_flags"].dtype == "u4"


def test_astri_names_are_unique():
    names = [c.astri for table in TABLES.values() for c in table.values() if c.astri]
    assert len(names) == len(set(names))
    assert column("dl1/image/ASTRICam", "hillas_intensity").astri == "SIZE"


def test_camera_groups_map_to_their_table():
    assert column("dl0/image/LSTCam", "adc") is TABLES["dl0/image"]["adc"]
    assert table_key("/monitoring/camera/ASTRICam/") == "monitoring/camera"
    assert table_key("simulation/thrown") == "simulation/thrown"


def test_unknown_names_are_refused():
    with pytest.raises(AstriError, match="no table 'dl9/image'"):
        column("dl9/image", "adc")
    with pytest.raises(AstriError, match="no column 'abc'; it has obs_id"):
        column("dl0/event", "abc")
