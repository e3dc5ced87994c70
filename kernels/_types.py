"""What every kernel shares: the array type of annotations, and the way to find the namespace."""

from typing import Any

from array_api_compat import array_namespace

Array = Any
"""Any array of a namespace known to array-api-compat; shapes are given by jaxtyping."""

__all__ = ["Array", "array_namespace", "masked", "per_image", "safe_divide"]


def per_image(xp, quantity: Array) -> Array:
    """Return `quantity` with a leading image axis: (pixel,) becomes (1, pixel)."""
    return quantity[None, :] if quantity.ndim == 1 else quantity


def masked(xp, mask: Array, values: Array, fill: float = 0.0) -> Array:
    """Return `values` where `mask`, elsewhere `fill`, in the dtype of `values`.

    Multiplying by the mask would let a NaN of an unused pixel through (NaN * 0 = NaN).
    """
    return xp.where(mask, values, xp.asarray(fill, dtype=values.dtype))


def safe_divide(xp, numerator: Array, denominator: Array) -> Array:
    """Return numerator / denominator, NaN where the denominator is 0, without a warning."""
    is_zero = denominator == 0
    one = xp.asarray(1.0, dtype=denominator.dtype)
    nan = xp.asarray(float("nan"), dtype=denominator.dtype)
    return xp.where(is_zero, nan, numerator / xp.where(is_zero, one, denominator))
