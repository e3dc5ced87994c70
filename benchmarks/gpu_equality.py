"""How far kernels and chains on a device are from the NumPy reference."""

from collections.abc import Callable
from typing import Any

import numpy as np

from astri_gpu.backend import make_backend
from astri_gpu.kernels.image_types import COLUMNS
from astri_gpu.kernels.loops import cpu as cpu_loops
from astri_gpu.kernels.loops import cuda as cuda_loops

from .chains import Setup, largest_difference
from .gpu_parts import Size, chain_of, device_arrays, loops_of, made_images, placed
from .kernel_rates import kernel_calls

__all__ = ["compared"]

AT_ONCE = 256  # images of the reference, which is dense
N_SAMPLES, N_WAVEFORMS = 12, 64
CLOSE = 1e-3  # NaN on one side only counts as infinite


def compared(size: Size) -> dict[str, Any]:
    """Return tables of the largest differences, ready for JSON."""
    made, xp = made_images(size), device_arrays(size)
    names = ("jax",) if size.is_dry else ("jax", "cupy")
    title = "Array text, largest difference relative to the largest value"
    columns = ["kernel", *names]
    tables = [{"title": title, "columns": columns, "rows": _kernels(made, size, names)}]

    host = made.rows(0, min(size.compared, made.events.n_images))
    reference = chain_of("numpy", made)
    steps = range(0, len(host[0]), AT_ONCE)
    parts = [reference(*(a[k : k + AT_ONCE] for a in host)) for k in steps]
    expected = {name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS}
    chains: dict[str, Callable[..., Any]] = {"cpu loops": chain_of("cpu", made)}
    chains |= {f"{name} backend": chain_of(name, made) for name in names}
    for form in cuda_loops.FORMS:
        chains[f"CUDA loops, {form} form"] = loops_of(made, xp, size, form=form)
    rows = [_row(name, chain(*host), expected) for name, chain in chains.items()]
    rows.append(_waveforms(made, xp, size))
    tables.append(
        {
            "title": f"Chains, {len(host[0])} images, every column on its own scale",
            "columns": ["chain", "largest difference", "in column", "share of columns within 1e-3"],
            "rows": rows,
        }
    )
    return {"tables": tables}


def _kernels(made: Setup, size: Size, names: tuple[str, ...]) -> list[list[Any]]:
    rows = []
    calls = kernel_calls(made, min(size.compared, AT_ONCE))
    for kernel, (function, arguments) in calls.items():
        with np.errstate(all="ignore"):  # images without a pixel are NaN
            expected = _leaves(function(*arguments))
        entry: list[Any] = [kernel]
        for name in names:
            backend = make_backend(name)
            result = _leaves(backend.compile(function)(*placed(backend, arguments)))
            pairs = zip(map(backend.to_host, result), expected, strict=True)
            entry.append(max(_difference(found, wanted) for found, wanted in pairs))
        rows.append(entry)
    return rows


def _leaves(tree: Any) -> list[Any]:
    """Return the arrays of nested tuples."""
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, tuple) else [tree]


def _difference(found: Any, expected: Any) -> float:
    found, expected = (np.asarray(a).astype(np.float64) for a in (found, expected))
    if (np.isnan(found) != np.isnan(expected)).any():
        return float("inf")
    known = np.isfinite(expected)
    if not known.any():
        return 0.0
    scale = max(float(np.max(np.abs(expected[known]))), 1e-12)
    return float(np.max(np.abs(found[known] - expected[known]))) / scale


def _row(name: str, result: Any, expected: dict[str, Any]) -> list[Any]:
    columns = {key: _to_host(values) for key, values in result.columns.items()}
    worst = largest_difference(columns, expected)
    column = max(worst, key=lambda key: worst[key])
    return [name, worst[column], column, float(np.mean([w <= CLOSE for w in worst.values()]))]


def _to_host(values: Any) -> Any:
    return values.get() if hasattr(values, "get") else np.asarray(values)


def _waveforms(made: Setup, xp: Any, size: Size) -> list[Any]:
    """Return the row of waveforms: the CUDA loops beside those of the CPU."""
    n_images = min(size.compared, 2 if size.is_dry else N_WAVEFORMS)
    adc, index, is_shower = made.rows(0, n_images)
    pulse = np.exp(-((np.arange(N_SAMPLES) - 4.3) ** 2) / 4)
    pedestal = made.events.calibration.pedestal[index]
    counts = pedestal[..., None] + (adc - pedestal)[..., None] * pulse
    batch = np.clip(np.rint(counts), 0, 4095).astype(np.uint16), index, is_shower
    arguments: dict[str, Any] = {"n_samples": N_SAMPLES, "adc_dtype": np.uint16, "dense": False}
    parts = made.camera, made.events.calibration, made.settings
    expected = cpu_loops.prepare(*parts, **arguments, n_threads=1)(*batch)
    workers = {"n_workers": 2} if size.is_dry else {}
    found = cuda_loops.prepare(*parts, **arguments, **workers, xp=xp)(*batch)
    name = f"CUDA loops, {n_images} images of {N_SAMPLES} samples, beside cpu loops"
    return _row(name, found, expected.columns)
