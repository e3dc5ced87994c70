"""Showers stay together, whatever the order and whatever else there is."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.reconstruction.folds import choose_groups, fold_numbers, group_keys

events = st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 20)), min_size=1, max_size=60)


def _keys(rows):
    obs, shower = np.array(rows).T
    return group_keys(obs, shower, np.arange(len(rows)) - 3)


@given(events)
def test_uses_of_a_shower_have_one_key(rows):
    keys = _keys(rows)
    named = {
        (obs, shower) if shower >= 0 else (obs, shower, k) for k, (obs, shower) in enumerate(rows)
    }
    assert len(set(keys.tolist())) == len(named)


def test_an_event_without_a_shower_is_not_the_shower_of_its_number():
    one, two = group_keys(np.array([1, 1]), np.array([-1, 7]), np.array([7, 0]))
    assert one != two


@settings(max_examples=50)
@given(events, st.integers(2, 5), st.randoms())
def test_folds_are_even_and_do_not_depend_on_the_order(rows, n_folds, random):
    keys = _keys(rows)
    fold = fold_numbers(keys, n_folds, seed=3)
    of_group = dict(zip(keys.tolist(), fold.tolist(), strict=True))
    assert [of_group[key] for key in keys.tolist()] == fold.tolist()  # never divided
    sizes = np.bincount(list(of_group.values()), minlength=n_folds)
    assert sizes.max() - sizes.min() <= 1
    order = list(range(len(rows)))
    random.shuffle(order)
    np.testing.assert_array_equal(fold_numbers(keys[order], n_folds, seed=3), fold[order])


def test_another_seed_gives_other_folds():
    keys = group_keys(np.ones(1000), np.arange(1000), np.arange(1000))
    assert np.any(fold_numbers(keys, 3, seed=1) != fold_numbers(keys, 3, seed=2))


@settings(max_examples=50)
@given(events, st.integers(1, 100))
def test_the_limit_takes_whole_showers(rows, most):
    keys = _keys(rows)
    n_images = np.arange(len(rows)) % 4 + 1
    kept = choose_groups(keys, n_images, most, seed=0)
    assert not set(keys[kept].tolist()) & set(keys[~kept].tolist())
    assert n_images[kept].sum() <= most or len(set(keys[kept].tolist())) == 1
    assert choose_groups(keys, n_images, None, seed=0).all()
