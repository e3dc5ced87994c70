"""The same seed gives the same store, whatever the batches, threads, backends and parts."""

import numpy as np
import pytest

from astri_gpu.config_sections import BackendConfig
from astri_gpu.config_simulation import ViewConfig
from astri_gpu.store_summary import tables

IMAGES = "dl0/image/ASTRICam"


def assert_equal_stores(found, expected, *, rtol=0.0, atol=0.0):
    """Compare all arrays of two stores."""
    assert tables(found) == tables(expected)
    for table in tables(expected):
        assert found.columns(table) == expected.columns(table)
        for name in expected.columns(table):
            left, right = found.read(f"{table}/{name}"), expected.read(f"{table}/{name}")
            if left.dtype.kind == "f":
                np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=name)
            else:
                np.testing.assert_array_equal(left, right, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 7, "backend": BackendConfig(name="cpu", threads=1)},
        {"batch_size": 1000, "images_per_chunk": 3},
    ],
    ids=["small batches, one thread", "one batch, small chunks"],
)
def test_batches_and_threads_change_nothing(made, small, tmp_path, options):
    assert_equal_stores(made(tmp_path / "b.zarr", **options), small)


@pytest.mark.parametrize(
    "xp",
    ["numpy", "jax", pytest.param("cupy", marks=pytest.mark.gpu)],
    indirect=True,
)
def test_backends_give_the_same_events(made, xp, small, tmp_path):
    backend = xp.__name__.split(".")[0]
    found = made(tmp_path / "b.zarr", backend=BackendConfig(name=backend))
    assert found.attrs["provenance"]["backend"] == backend
    assert_equal_stores(found, small, rtol=1e-6, atol=1e-6)


def test_backends_agree_on_protons(made, tmp_path):
    options = {"production": "proton", "n_showers": 20, "view": ViewConfig(cone_max_deg=3)}
    expected = made(tmp_path / "cpu.zarr", **options)
    assert expected.attrs["kind"] == "proton"
    assert (expected.read("simulation/event/true_primary_id") == 101).all()
    found = made(tmp_path / "np.zarr", **options, backend=BackendConfig(name="numpy"))
    assert_equal_stores(found, expected, rtol=1e-6, atol=1e-6)


def test_parts_join_to_the_whole(made, small, tmp_path):
    parts = [
        made(tmp_path / f"{start}.zarr", n_showers=20, first_shower=start) for start in (0, 20, 40)
    ]
    for table in ("dl0/event", "simulation/event", IMAGES, "simulation/image/ASTRICam"):
        for name in small.columns(table):
            joined = np.concatenate([part.read(f"{table}/{name}") for part in parts])
            if name == "event_index":  # counts in each part from 0
                part = np.repeat(np.arange(len(parts)), [part.n_rows(table) for part in parts])
                joined = np.unique(joined + 1000 * part, return_inverse=True)[1]
            np.testing.assert_array_equal(joined, small.read(f"{table}/{name}"))
    thrown = [part.read("simulation/thrown/histogram") for part in parts]
    np.testing.assert_array_equal(sum(thrown), small.read("simulation/thrown/histogram"))


@pytest.mark.parametrize(
    ("options", "obs_id"),
    [({"seed": 2}, 20), ({"production": "electron"}, 11)],
    ids=["seed", "particle"],
)
def test_another_seed_or_particle_gives_other_showers_in_the_same_cameras(
    made, small, tmp_path, options, obs_id
):
    view = ViewConfig(scatter_radius_m=250.0, cone_max_deg=0.0)
    other = made(tmp_path / "b.zarr", **options | {"view": view})
    assert other.attrs["obs_id"] == obs_id
    assert other.n_rows("simulation/event") > 5
    for name in ("true_energy", "true_core_x"):
        path = f"simulation/event/{name}"
        assert not np.isin(other.read(path), small.read(path)).any()
    for name in ("true_gain", "true_efficiency"):
        path = f"simulation/camera/ASTRICam/{name}"
        np.testing.assert_array_equal(other.read(path), small.read(path))
