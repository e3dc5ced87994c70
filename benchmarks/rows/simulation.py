"""Productions of the fast model: showers per second, those that do not trigger included."""

import functools
import tempfile
from pathlib import Path

from ..cases import run_case
from ..chains import worst_difference
from ..row import Measured, Row, Settings, per_two_cores, reference

__all__ = ["GAMMAS", "PROTONS"]

MILLION = 1_000_000
N_COMPARED = 40


def measure(particle: str, seconds: float, showers: int, settings: Settings) -> Measured:
    """Return showers/s of one particle.

    Parameters
    ----------
    particle
        As in ``production=``.
    seconds
        In which a million have to be done.
    showers
        To be simulated here; the cost of a shower does not depend on how many there are.
    settings
        Of the run.
    """
    with tempfile.TemporaryDirectory(dir=settings.scratch, prefix="astri-gpu-benchmark-") as folder:
        found = run_case(
            "production",
            fresh=False,
            particle=particle,
            n_showers=settings.size(showers, 200),
            seed=1,
            backend="cpu",
            folder=folder,
            overrides=["shower=draft"] if settings.quick else [],
        )
        found.pop("parameters")
        error, column = _difference(particle, Path(folder))
    rate = found["showers_per_s"]
    return Measured(
        rate=rate,
        unit="showers/s",
        reached=per_two_cores(rate) >= MILLION / seconds,
        error=error,
        error_from=reference(error, column),
        peak_memory_mib=found["peak_memory_mib"],
        notes=(
            f"{found['n_showers']} showers in {found['seconds']:.1f} s, camera and store included, "
            f"compiling and light tables not ({found['first_call_s']:.1f} s)",
            f"a million in {MILLION / rate:.0f} s; "
            f"{found['n_triggered_images'] / found['seconds']:,.0f} images/s leave the cameras",
            "no peer was measured: CORSIKA and sim_telarray are not to be had here",
        ),
        details=found,
    )


def _difference(particle: str, folder: Path) -> tuple[float, str]:
    """Return the largest difference of a small production from that of the array text."""
    from astri_gpu.config import compose
    from astri_gpu.stages import simulate
    from astri_gpu.store import open_store

    found = []
    for backend in ("cpu", "numpy"):
        path = folder / f"{backend}.zarr"
        options = [
            f"production={particle}",
            f"n_showers={N_COMPARED}",
            f"backend={backend}",
            f"output='{path}'",
            "shower=draft",
            "spectrum.energy_min_tev=3",
            "view.scatter_radius_m=250",
            "view.cone_max_deg=3",
            "progress=false",
        ]
        simulate.run(compose("simulate", options))
        store = open_store(path)
        image = f"dl0/image/{store.cameras()[0]}"
        names = [
            f"{table}/{name}"
            for table in ("simulation/event", image)
            for name in store.columns(table)
        ]
        arrays = {name: store.read(name) for name in names}
        found.append({name: values for name, values in arrays.items() if values.dtype.kind != "b"})
    worst, name = worst_difference(*found)
    return worst, name.rsplit("/", 1)[-1]


def _row(name: str, particle: str, minutes: int, showers: int) -> Row:
    return Row(
        name,
        f"simulation of {particle}s to a DL0 store, cpu backend, all cores",
        f"a million in ≤ {minutes} min on two cores",
        functools.partial(measure, particle, 60.0 * minutes, showers),
    )


GAMMAS = _row("gammas", "gamma", 2, 300_000)
PROTONS = _row("protons", "proton", 8, 100_000)
