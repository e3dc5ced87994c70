"""Our showers beside those of CORSIKA: light on the ground, height of emission, images.

``python -m benchmarks.corsika FOLDER`` reads the IACT files of gammas in a folder, simulates a
gamma of the same energy, first interaction and core for each telescope, and writes
``results/<date>-<machine>-corsika.md``. Nothing is fitted. A shower of CORSIKA is one shower, ours
is the mean one that starts at the same height: ratios of single telescopes scatter.

Light is compared as photons between the limits of wavelength of the file, without losses; images
through our camera, losses and all, with the trigger opened.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.io.iact import Bunches
from astri_gpu.kernels.atmosphere import air_at
from astri_gpu.kernels.shower import em_light
from astri_gpu.kernels.simulation_types import EmRows
from astri_gpu.simulation.atmosphere import atmosphere_profile
from astri_gpu.simulation.tables import light_tables

from .corsika_gammas import GEV_PER_TEV, Site, axis_line, gammas, start_depth
from .corsika_images import compare_images, image_table
from .machine import describe, slug

__all__ = ["Average", "Pair", "average", "compare_light", "main"]

FINE_STRUCTURE = 1 / 137.035999
NEAR_M = 50.0


class Pair(NamedTuple):
    """Light at one telescope, CORSIKA's and ours."""

    shower: int
    use: int
    telescope: int
    energy_gev: float
    distance_m: float  # from the axis
    density: tuple[float, float]  # photons per m2
    depth: tuple[float, float]  # mean depth of emission, g/cm2 along the axis


def _depth_of(site: Site, bunches: Bunches) -> float:
    """Return the mean depth along the pointing at which photons were emitted, g/cm2."""
    profile = atmosphere_profile(site.config.atmosphere)
    height = np.maximum(bunches.emission_height, site.run.observation_level_m)
    depth = air_at(height, profile).thickness / math.sin(math.radians(site.frame.alt))
    return float(np.average(depth, weights=bunches.photons))


def compare_light(path: Path, *, tables: str = "standard", profile: str = "teide") -> list[Pair]:
    """Return density and depth of emission at every telescope of the gammas of a file.

    Parameters
    ----------
    path
        CORSIKA IACT file.
    tables, profile
        Options ``shower.tables`` and ``atmosphere.profile``.
    """
    pairs: list[Pair] = []
    known: dict[int, Any] = {}
    for site, event in gammas(path, tables, profile):
        config = site.config
        if id(site) not in known:
            known[id(site)] = light_tables(
                config.atmosphere,
                config.shower,
                config.optics,
                math.radians(config.view.zenith_deg),
            )
        grid, light = known[id(site)]
        x, y, q_lon, q_lat = axis_line(site, event)
        tel = site.telescopes
        n_tel = len(tel.x)
        shower = (event.true_energy * GEV_PER_TEV, start_depth(site, event), 0.0, 0.0)
        em = EmRows(*(np.full(n_tel, value) for value in (*shower, q_lon, q_lat, 1.0)))
        electrons = em_light(
            em, np.full(n_tel, x), np.full(n_tel, y), tel.x, tel.y, tel.z, grid, light
        )
        # Photo-electrons of a mirror with losses -> photons per m2 without (Frank and Tamm 1937).
        span = 1e9 / event.wavelength_min_nm - 1e9 / event.wavelength_max_nm
        per_electron = 2 * math.pi * FINE_STRUCTURE * span / grid.light_yield
        photons = electrons * per_electron / config.optics.mirror_area_m2
        distance = np.hypot(tel.x - (x + q_lon * tel.z), tel.y - (y + q_lat * tel.z))
        for row, bunches in enumerate(event.bunches):
            seen = bunches.photons.sum() / (math.pi * site.run.radius[row] ** 2)
            pairs.append(
                Pair(
                    event.shower,
                    event.use,
                    row + 1,
                    event.true_energy * GEV_PER_TEV,
                    float(distance[row]),
                    (float(seen), float(photons[row].sum())),
                    (
                        _depth_of(site, bunches),
                        float(np.average(grid.depth, weights=photons[row])),
                    ),
                )
            )
    return pairs


class Average(NamedTuple):
    """Mean over telescopes, CORSIKA's and ours."""

    n_telescopes: int
    n_showers: int
    density: tuple[float, float]  # photons per m2
    depth: tuple[float, float]  # of the mean photon, g/cm2


def average(pairs: Sequence[Pair]) -> Average:
    """Return the mean density of photons, and the mean depth at which they were emitted."""
    density = np.array([pair.density for pair in pairs])
    depth = np.array([pair.depth for pair in pairs])
    theirs, ours = density.mean(axis=0)
    mean = (density * depth).sum(axis=0) / density.sum(axis=0)
    return Average(
        len(pairs),
        len({pair.shower for pair in pairs}),
        (float(theirs), float(ours)),
        (float(mean[0]), float(mean[1])),
    )


def _summary(pairs: Sequence[Pair]) -> str:
    """Return averages of the whole file, of telescopes near to the axis and far, and of showers."""
    near = [pair for pair in pairs if pair.distance_m < NEAR_M]
    groups = {"all": pairs, f"< {NEAR_M:.0f} m": near}
    groups[f"> {NEAR_M:.0f} m"] = [pair for pair in pairs if pair.distance_m >= NEAR_M]
    for shower in sorted({pair.shower for pair in pairs}):
        groups[f"shower {shower}"] = [pair for pair in pairs if pair.shower == shower]
    lines = [
        "| telescopes | number | photons/m2: CORSIKA | model | ratio | depth: CORSIKA | model |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        if group:
            found = average(group)
            theirs, ours = found.density
            lines.append(
                f"| {name} | {found.n_telescopes} | {theirs:.2f} | {ours:.2f} "
                f"| **{ours / theirs:.2f}** | {found.depth[0]:.0f} | {found.depth[1]:.0f} |"
            )
    return "\n".join(lines)


def _light_table(pairs: Sequence[Pair]) -> str:
    lines = [
        "| shower, use, telescope | E GeV | distance m | photons/m2: CORSIKA | model | ratio "
        "| depth g/cm2: CORSIKA | model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        seen, ours = pair.density
        lines.append(
            f"| {pair.shower}, {pair.use}, {pair.telescope} | {pair.energy_gev:.0f} "
            f"| {pair.distance_m:.0f} | {seen:.2f} | {ours:.2f} | {ours / seen:.2f} "
            f"| {pair.depth[0]:.0f} | {pair.depth[1]:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Compare all gammas of a folder and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corsika", description=__doc__)
    parser.add_argument("folder", type=Path, help="with CORSIKA IACT files")
    parser.add_argument("--tables", choices=["standard", "draft"], default="standard")
    parser.add_argument("--profile", default="teide", help="atmosphere.profile of our showers")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    chosen = {"tables": options.tables, "profile": options.profile}
    machine = describe()
    text = [
        "# Showers beside CORSIKA",
        (__doc__ or "").partition("\n\n")[2].strip(),
        f"Light tables: {options.tables}; air: {Path(options.profile).name}; revision "
        f"{machine['revision']}, {machine['date'][:10]}.",
    ]
    for path in sorted(entry for entry in options.folder.iterdir() if entry.is_file()):
        try:
            pairs = compare_light(path, **chosen)
        except AstriError as error:
            print(error, file=sys.stderr)
            continue
        if not pairs:
            continue
        images = image_table(compare_images(path, **chosen))
        summary = _summary(pairs)
        print(f"{path.name}\n{summary}")
        text += [f"## {path.name}", summary, _light_table(pairs), images]
    if len(text) == 3:
        parser.error(f"there is no CORSIKA IACT file of gammas in {options.folder}")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{slug(machine)}-corsika.md").write_text("\n\n".join(text) + "\n")


if __name__ == "__main__":
    main()
