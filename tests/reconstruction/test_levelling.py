"""Levelling against the algorithm as A-SciSoft has it: cut into cells, drop at random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astri_gpu.errors import UsageError
from astri_gpu.reconstruction.levelling import cell_numbers, levelled, parse_axes

cells = st.lists(st.integers(-1, 6), max_size=80).map(lambda values: np.array(values, np.int64))


@given(cells, cells, st.integers(0, 9))
def test_every_cell_has_equally_many_of_both(first, second, seed):
    kept = levelled(first, second, np.random.default_rng(seed))
    for cell in range(7):
        numbers = [np.count_nonzero(part == cell) for part in (first, second)]
        left = [
            np.count_nonzero(part[mask] == cell)
            for part, mask in zip((first, second), kept, strict=True)
        ]
        assert left == [min(numbers)] * 2
    assert not kept[0][first < 0].any()
    assert not kept[1][second < 0].any()


def test_which_images_are_dropped_is_random_but_repeatable():
    first, second = np.zeros(1000, np.int64), np.zeros(100, np.int64)
    one, again, other = (
        levelled(first, second, np.random.default_rng(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert 0.3 < np.flatnonzero(one).mean() / 1000 < 0.7  # not the first ones


def test_cells_are_closed_on_the_right_as_those_of_pandas():
    # pandas.cut([0, 0.1, 1, 1.5, 2, 2.1], np.linspace(0, 2, 3)).codes
    axes = parse_axes(["hillas_width:2:0:2"])
    columns = {"hillas_width": np.array([0.0, 0.1, 1.0, 1.5, 2.0, 2.1, np.nan])}
    assert cell_numbers(axes, columns).tolist() == [-1, 0, 0, 1, 1, -1, -1]


def test_cells_of_two_axes_are_pairs_of_bins():
    axes = parse_axes(["log10(hillas_intensity):10:1:6", "astri_dist:5:0:5"])
    columns = {
        "hillas_intensity": np.array([20.0, 20.0, 2e5, 0.0]),
        "astri_dist": np.array([0.5, 4.5, 0.5, 0.5]),
    }
    assert cell_numbers(axes, columns).tolist() == [0, 4, 40, -1]


@pytest.mark.parametrize(
    "text",
    ["", "hillas_width", "hillas_width:0:0:1", "hillas_width:5:2:1", "a:b:c:d", "x:1:0:inf"],
)
def test_what_is_no_axis_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"sample.levelling has .*such as log10"):
        parse_axes([text])


def test_an_expression_that_cannot_be_read_and_too_many_cells_are_refused():
    with pytest.raises(UsageError):
        parse_axes(["open('x'):5:0:1"])
    with pytest.raises(UsageError, match="more than 10,000,000 cells"):
        parse_axes(["hillas_width:10000:0:1", "hillas_length:10000:0:1"])
