"""The numbers of the report: against NumPy on the same columns, and against their definitions."""

import json

import numpy as np
import pytest

from astri_gpu.power_law import integral
from astri_gpu.report.binned import (
    Axis,
    quantile_of_counts,
    share_interval,
)
from astri_gpu.report.numbers import effective_area, rates, solid_angle, summary
from astri_gpu.report.reconstructed import DIRECTION
from astri_gpu.store import open_store

CAMERA = "ASTRICam"
THROWN, RADIUS = 20_000, 500.0  # of `stores`


def truth(path):
    """Return the columns that the numbers are checked with."""
    store = open_store(path)
    read = {name: store.read(f"simulation/event/true_{name}") for name in ("energy",)}
    shower = store.read("dl0/event/event_type") == 32
    index = store.read(f"dl1/image/{CAMERA}/event_index")
    intensity = store.read(f"dl1/image/{CAMERA}/hillas_intensity")
    use = np.isfinite(intensity) & shower[index]
    n_images = np.bincount(index[use], minlength=len(shower))
    valid = shower & store.read("dl2/event/stereo_is_valid")
    return store, read["energy"], shower, valid, n_images, use


def test_numbers_equal_those_of_the_columns(collected, stores):
    (sample,) = collected(stores["more"])
    numbers = summary([sample], 5)["gamma"]
    store, _, shower, valid, n_images, use = truth(stores["more"])
    assert numbers["events"] == shower.sum()
    assert numbers["thrown"] == THROWN
    assert numbers["fraction_triggered"] == pytest.approx(shower.sum() / THROWN)
    assert numbers["images"] == use.sum()
    assert (
        numbers["telescope_triggers"]
        == store.n_rows(f"dl0/image/{CAMERA}")
        - (store.read(f"dl0/image/{CAMERA}/event_index") == 0).sum()
    )
    with_images = n_images[shower & (n_images > 0)]
    assert numbers["images_per_event"] == pytest.approx(with_images.mean())
    assert numbers["mono_image_share"] == pytest.approx((with_images == 1).sum() / use.sum())
    assert numbers["events_by_images"] == np.bincount(n_images[shower], minlength=10).tolist()
    assert numbers["reconstructed"] == valid.sum()
    error = np.hypot(
        (store.read("dl2/event/stereo_alt") - 70),
        store.read("dl2/event/stereo_az") * np.cos(np.deg2rad(70)),
    )[valid]
    assert numbers["direction_error_68_deg"] == pytest.approx(np.quantile(error, 0.68), rel=0.02)
    core = store.read("dl2/event/stereo_core_x") - store.read("simulation/event/true_core_x")
    assert numbers["core_error_68_m"] == pytest.approx(np.quantile(core[valid], 0.68), rel=0.02)
    for name, label in (("hillas_width", "WIDTH"), ("hillas_intensity", "SIZE")):
        values = store.read(f"dl1/image/{CAMERA}/{name}")[use]
        for share in (10, 50, 90):
            assert numbers["parameters"][label][f"q{share}"] == pytest.approx(
                np.quantile(values, share / 100), rel=0.015
            )


def test_effective_area_by_energy(collected, stores):
    (sample,) = collected(stores["more"])
    _, energy, shower, _, _, _ = truth(stores["more"])
    value, low, high = effective_area(sample, sample.triggered, 5)
    edges = sample.merged_edges(5)
    np.testing.assert_allclose(edges, np.geomspace(1e-3, 1e3, 31))
    events = np.histogram(energy[shower], edges)[0]
    thrown = np.add.reduceat(sample.thrown, sample.merged(5))
    some = thrown > 0
    np.testing.assert_allclose(value[some], events[some] / thrown[some] * np.pi * RADIUS**2)
    assert np.isnan(value[~some]).all()
    assert (low[some] < value[some]).all()
    assert (value[some] < high[some]).all()
    table = summary([sample], 5)["gamma"]["by_energy"]
    assert len(table) == some.sum()
    assert sum(row["triggered"] for row in table) == shower.sum()


def test_rates_are_event_weights(collected, stores):
    """The rate is the sum of flux / thrown density over the events, up to the width of the bins."""
    (sample,) = collected(stores["proton"])
    _, energy, shower, valid, _, _ = truth(stores["proton"])
    rate = rates(sample)
    density = THROWN / np.log(10**2.5) / energy[shower]  # thrown per TeV for E^-1
    area = np.pi * RADIUS**2 * 2 * np.pi * (1 - np.cos(np.deg2rad(6)))
    weights = 0.096 * energy[shower] ** -2.7 * area / density
    assert rate.array == pytest.approx(weights.sum(), rel=0.02)
    assert rate.array_error == pytest.approx(np.sqrt((weights**2).sum()), rel=0.03)
    assert rate.reconstructed == pytest.approx(weights[valid[shower]].sum(), rel=0.02)
    assert rate.telescope < rate.array
    assert solid_angle(sample) == pytest.approx(2 * np.pi * (1 - np.cos(np.deg2rad(6))))


def test_parts_of_a_production_are_one_sample(collected, stores):
    gamma, more, both = (
        collected(stores["gamma"]),
        collected(stores["more"]),
        collected(stores["gamma"], stores["more"]),
    )
    assert [sample.label for sample in both] == ["gamma"]
    assert both[0].n_images == gamma[0].n_images + more[0].n_images
    np.testing.assert_array_equal(both[0].direction, gamma[0].direction + more[0].direction)
    np.testing.assert_array_equal(both[0].thrown, gamma[0].thrown + more[0].thrown)


def test_other_productions_of_a_particle_are_other_samples(collected, stores):
    samples = collected(stores["gamma"], stores["unknown"], stores["proton"])
    assert [sample.label for sample in samples] == ["gamma (gamma)", "gamma (unknown)", "proton"]


def test_order_of_blocks_does_not_matter(collected, stores, monkeypatch):
    whole = summary(collected(stores["more"]), 5)
    blocks = type(open_store(stores["more"])).blocks

    def small(self, path):
        for start, stop in blocks(self, path):
            yield from ((first, min(first + 37, stop)) for first in range(start, stop, 37))

    monkeypatch.setattr("astri_gpu.store.Store.blocks", small)
    assert json.dumps(summary(collected(stores["more"]), 5)) == json.dumps(whole)


def test_quantiles_of_histograms():
    rng = np.random.default_rng(1)
    values = rng.lognormal(0, 1, 5000)
    axis = Axis("x", "", 1e-3, 1e3, 2000, log=True)
    found = quantile_of_counts(axis.count(values), axis, 0.68)
    assert found.value == pytest.approx(np.quantile(values, 0.68), rel=0.01)
    spread = np.sqrt(0.68 * 0.32 / 5000)
    assert found.low == pytest.approx(np.quantile(values, 0.68 - spread), rel=0.01)
    assert found.high == pytest.approx(np.quantile(values, 0.68 + spread), rel=0.01)
    assert found.entries == 5000
    assert np.isnan(quantile_of_counts(np.zeros(2000), axis, 0.5).value)
    assert np.isnan(quantile_of_counts(axis.count(values[:10]), axis, 0.5, fewest=11).value)
    flat = Axis("x", "", 0.0, 10.0, 10)
    counts = np.array([0, 0, 4, 0, 0, 0, 0, 4, 0, 0.0])
    assert quantile_of_counts(counts, flat, 0.25).value == pytest.approx(2.5)
    assert quantile_of_counts(counts, flat, 0.75).value == pytest.approx(7.5)
    assert quantile_of_counts(counts, flat, 1.0).value == pytest.approx(8.0)


def test_values_outside_an_axis_are_counted_at_its_ends():
    np.testing.assert_array_equal(DIRECTION.index(np.array([0.0, 500.0])), [0, 1249])


def test_share_interval_against_its_definition():
    passed, thrown = np.array([0.0, 3.0, 10.0]), np.array([10.0, 10.0, 10.0])
    p, low, high = share_interval(passed, thrown)
    np.testing.assert_allclose(p, [0, 0.3, 1])
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[2] == pytest.approx(1)
    # The ends are the shares from which the observed one is one standard deviation away.
    for end in (low[1], high[1]):
        assert abs(p[1] - end) == pytest.approx(np.sqrt(end * (1 - end) / 10))
    assert np.isnan(share_interval(np.zeros(1), np.zeros(1))[0]).all()


@pytest.mark.parametrize("index", [-2.7, -1.0, 0.0])
def test_integral_of_a_power_law(index):
    grid = np.linspace(2.0, 3.0, 100_001)
    expected = np.trapezoid(grid**index, grid)
    assert integral(index, np.array([2.0]), np.array([3.0]))[0] == pytest.approx(expected)
    assert integral(index, np.array([2.0]), np.array([1.0]))[0] == 0
