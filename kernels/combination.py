"""What the images of an event say together: weighted means, spreads and expected errors.

Events are rows, their images are slots: (event, slot) arrays, with `used` True where a slot holds
an image that takes part. Results are NaN for events without such images.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int

from ._types import Array, array_namespace, masked, safe_divide

__all__ = [
    "Combined",
    "combine_directions",
    "count",
    "expected_error",
    "highest",
    "sum_slots",
    "total",
    "weighted_mean",
]


class Combined(NamedTuple):
    """A quantity of each event from its images."""

    mean: Float[Array, " event"]
    spread: Float[Array, " event"]  # weighted standard deviation, 0 for one image
    error: Float[Array, " event"]  # 1/sqrt(sum of weights)


def sum_slots(values: Float[Array, "event slot"]) -> Float[Array, " event"]:
    """Return the sum over a few slots; NumPy takes ten times as long for a short last axis."""
    result = values[:, 0]
    for slot in range(1, values.shape[-1]):
        result = result + values[:, slot]
    return result


def count(used: Bool[Array, "event slot"]) -> Int[Array, " event"]:
    """Return the number of used slots, int32."""
    xp = array_namespace(used)
    return xp.sum(xp.astype(used, xp.int32), axis=-1, dtype=xp.int32)


def total(
    values: Float[Array, "event slot"], used: Bool[Array, "event slot"]
) -> Float[Array, " event"]:
    """Return the sum of the values in used slots, 0 without any."""
    xp = array_namespace(values, used)
    return sum_slots(masked(xp, used, values))


def highest(
    values: Float[Array, "event slot"], used: Bool[Array, "event slot"]
) -> Float[Array, " event"]:
    """Return the highest of the values in used slots, NaN without any."""
    xp = array_namespace(values, used)
    top = xp.max(masked(xp, used, values, float("-inf")), axis=-1)
    return masked(xp, xp.any(used, axis=-1), top, float("nan"))


def expected_error(
    error: Float[Array, "event slot"], used: Bool[Array, "event slot"]
) -> Float[Array, " event"]:
    """Return the error of a mean with weights 1/error^2: 1/sqrt(sum of weights), NaN without."""
    xp = array_namespace(error, used)
    weights = sum_slots(_weight(xp, error, used))
    return xp.sqrt(safe_divide(xp, xp.ones_like(weights), weights))


def weighted_mean(
    values: Float[Array, "event slot"],
    error: Float[Array, "event slot"],
    used: Bool[Array, "event slot"],
) -> Combined:
    """Return mean, spread and expected error of values with weights 1/error^2.

    Parameters
    ----------
    values : (event, slot)
    error : (event, slot), expected error of each value, in its unit, positive
    used : (event, slot)
    """
    xp = array_namespace(values, error, used)
    weight = _weight(xp, error, used)
    values = masked(xp, used, values)
    weights = sum_slots(weight)
    mean = safe_divide(xp, sum_slots(weight * values), weights)
    deviation = weight * (values - mean[:, None]) ** 2
    return Combined(
        mean=mean,
        spread=xp.sqrt(safe_divide(xp, sum_slots(deviation), weights)),
        error=xp.sqrt(safe_divide(xp, xp.ones_like(weights), weights)),
    )


def _weight(xp, error: Array, used: Array) -> Array:
    return masked(xp, used, 1.0 / masked(xp, used, error, 1.0) ** 2)


def combine_directions(
    first: tuple[Float[Array, " event"], Float[Array, " event"]],
    second: tuple[Float[Array, " event"], Float[Array, " event"]],
    first_error: Float[Array, " event"],
    second_error: Float[Array, " event"],
    has_second: Bool[Array, " event"],
) -> tuple[Float[Array, " event"], Float[Array, " event"]]:
    """Return the means of two directions with weights 1/error^2.

    Parameters
    ----------
    first, second : longitude and latitude (event,) in one telescope frame, deg
    first_error, second_error : (event,), expected errors, deg, positive
    has_second : (event,), where the second direction counts; elsewhere the first stands alone

    Returns
    -------
    longitude, latitude : (event,), deg
    """
    xp = array_namespace(first_error, second_error, has_second)
    ratio = masked(xp, has_second, first_error) / masked(xp, has_second, second_error, 1.0)
    share = ratio**2 / (1.0 + ratio**2)  # of the second
    lon, lat = (
        a + share * masked(xp, has_second, b - a) for a, b in zip(first, second, strict=True)
    )
    return lon, lat
