"""Stores of simulated, reconstructed events: which of them fit together, and what was thrown."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.selection.sample import KINDS, Thrown
from astri_gpu.store import Store, open_store

__all__ = ["Production", "check_together", "open_productions"]

logger = logging.getLogger(__name__)

NEXT = {"DL0": "process, train and reconstruct", "DL1a": "process, train and reconstruct"}
STEADY_DEG = 0.1  # how far the pointing may move in a store
NEEDED = ("reco_is_valid", "reco_energy", "gammaness", "reco_alt", "reco_az", "reco_n_tels")
HEADER = ("n_showers", "energy_range_min", "energy_range_max", "spectral_index")


@dataclass(frozen=True)
class Production:
    """One store of simulated events, and how it was thrown.

    Attributes
    ----------
    store
        DL2b.
    kind
        One of `KINDS`.
    zenith_deg, azimuth_deg
        Of the pointing of the array.
    thrown
        One entry per run header.
    """

    store: Store
    kind: str
    zenith_deg: float
    azimuth_deg: float
    thrown: tuple[Thrown, ...]

    @property
    def path(self) -> Path:
        """Return the store's directory."""
        return self.store.path

    @property
    def pointing(self) -> tuple[float, float]:
        """Return zenith and azimuth angle, deg, rounded so that equal ones are equal."""
        return round(self.zenith_deg, 2), round(self.azimuth_deg, 2) % 360.0

    @property
    def way(self) -> tuple[float, float, float]:
        """Return cone (from, to; deg) and radius of the cores (m), rounded."""
        first = self.thrown[0]
        return (
            round(first.cone_min_deg, 4),
            round(first.cone_max_deg, 4),
            round(first.max_impact_m, 1),
        )


def open_productions(paths: Iterable[str | Path]) -> list[Production]:
    """Return the stores with what their headers say, sorted by kind and path.

    Raises
    ------
    AstriError
        When one is no DL2b store of simulated gammas, protons, electrons or helium nuclei, or
        holds a part of what was thrown.
    """
    found = [_production(open_store(path)) for path in paths]
    return sorted(found, key=lambda item: (KINDS.index(item.kind), str(item.path)))


def _production(store: Store) -> Production:
    level, kind = store.attrs.get("data_level"), store.attrs.get("kind")
    if "simulation/event" not in store:
        raise AstriError(
            f"{store.path} holds no simulated truth ({kind or 'unknown'} data): give stores of "
            "simulated gammas and background."
        )
    if level != "DL2b" or "dl2/event/reco_is_valid" not in store:
        stages = NEXT.get(str(level), "reconstruct")
        raise AstriError(
            f"{store.path} is a {level} store, without energies, scores and directions: run "
            f"`astri-gpu {stages}` on it and give the output."
        )
    lacking = [name for name in NEEDED if f"dl2/event/{name}" not in store]
    if lacking:
        raise AstriError(
            f"{store.path} lacks the columns {', '.join(lacking)} of dl2/event: run `astri-gpu "
            "reconstruct` on its DL2a store."
        )
    if kind not in KINDS:
        raise AstriError(
            f"{store.path} is a store of {kind or 'unknown'} events, for which there is no "
            f"spectrum: give stores of {', '.join(KINDS[:-1])} or {KINDS[-1]}."
        )
    header = store.group_attrs("simulation")
    if header.get("partial") or store.attrs.get("truncated"):
        raise AstriError(
            f"{store.path} holds a part of its production, so nobody knows how many of the thrown "
            "showers belong to its events: ingest the whole file again, without max_events."
        )
    zenith, azimuth = _pointing(store, header)
    return Production(store, str(kind), zenith, azimuth, _thrown(store, header))


def _thrown(store: Store, attrs: Mapping[str, Any]) -> tuple[Thrown, ...]:
    headers = [item for item in attrs.get("mc_run_headers") or [] if isinstance(item, Mapping)]
    found = tuple(_thrown_once(store, header) for header in headers or [attrs])
    ways = {(item.cone_min_deg, item.cone_max_deg, item.max_impact_m) for item in found}
    if len(ways) > 1:
        low, high, radius = (sorted(set(values)) for values in zip(*ways, strict=True))
        raise AstriError(
            f"The runs in {store.path} were thrown differently (cones from {low} to {high} deg, "
            f"cores within {radius} m): ingest them one by one."
        )
    return found


def _thrown_once(store: Store, header: Mapping[str, Any]) -> Thrown:
    def number(name: str, default: float | None = None) -> float:
        value = header.get(name, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise AstriError(
                f"{store.path} does not say how its showers were thrown ({name} of its run header "
                f"is {value}): make the store again from complete files."
            )
        return float(value)

    n_showers, low, high, index = (number(name) for name in HEADER)
    radius, inner = number("max_scatter_range"), number("min_scatter_range", 0.0)
    cone = number("min_viewcone_radius", 0.0), number("max_viewcone_radius", 0.0)
    n_showers *= number("shower_reuse", 1.0)
    for name, value in (
        ("n_showers times shower_reuse", n_showers),
        ("energy_range_min", low),
        ("energy_range_max minus energy_range_min", high - low),
        ("max_scatter_range minus min_scatter_range", radius - inner),
    ):
        if not value > 0:
            raise AstriError(
                f"The run header of {store.path} cannot be used: {name} is {value:g} and has to be "
                "above 0."
            )
    return Thrown(
        n_showers=n_showers,
        energy_min_tev=low,
        energy_max_tev=high,
        spectral_index=index,
        # Of the disc that has the area of the ring, which is all that weights ask for.
        max_impact_m=float(np.sqrt(radius**2 - inner**2)),
        cone_min_deg=cone[0],
        cone_max_deg=cone[1],
    )


def _pointing(store: Store, header: Mapping[str, Any]) -> tuple[float, float]:
    """Return zenith and azimuth angle of the array, from its events or (without any) the header."""
    alt = az = np.empty(0)
    if store.n_rows("dl0/event"):
        rows = store.read_table("dl0/event", ["array_alt", "array_az"])
        known = np.isfinite(rows["array_alt"]) & np.isfinite(rows["array_az"])
        alt, az = rows["array_alt"][known], rows["array_az"][known]
    if not len(alt):
        found = [header.get(name) for name in ("min_alt", "max_alt", "min_az", "max_az")]
        values = [float(value) for value in found if isinstance(value, int | float)]
        if len(values) < len(found):
            raise AstriError(f"{store.path} does not say where its telescopes pointed.")
        return 90.0 - (values[0] + values[1]) / 2, (values[2] + values[3]) / 2 % 360.0
    turned = (az - az[0] + 180.0) % 360.0 - 180.0
    moved = max(np.ptp(alt), np.ptp(turned) * np.cos(np.deg2rad(alt[0])))
    if moved > STEADY_DEG:
        raise AstriError(
            f"The pointing moves by {moved:.2f} deg in {store.path}: cuts and responses are for "
            "one pointing, so give one store for each."
        )
    return 90.0 - float(alt.mean()), float(az[0] + turned.mean()) % 360.0


def check_together(productions: Sequence[Production]) -> dict[str, Any]:
    """Return what all stores have in common, for the records of products made from them.

    Raises
    ------
    AstriError
        When cameras, arrays, models or programs differ, or one kind was thrown in several ways.
    """
    seen: dict[str, tuple[Any, Production]] = {}
    for item in productions:
        for what, value in _identity(item.store).items():
            before, other = seen.setdefault(what, (value, item))
            if before != value:
                _differ(what, (other, before), (item, value))
    _check_ways(productions)
    first = productions[0].store
    place = first.group_attrs("instrument")
    models = first.attrs.get("models") or {}
    trained_on = [item.path.name for item in productions if _was_trained_on(item.store)]
    if trained_on:
        logger.warning(
            "The forests were trained on the events of %s: cuts and responses made of them look "
            "better than they are",
            ", ".join(trained_on),
        )
    return {
        "simulation_model": first.attrs.get("simulation_model"),
        "models": models.get("checksum"),
        "cameras": sorted(seen["cameras"][0]),
        "array": place.get("name"),
        "tel_ids": first.read("instrument/telescope/tel_id").tolist(),
        "latitude_deg": place.get("latitude_deg"),
        "longitude_deg": place.get("longitude_deg"),
        "altitude_m": place.get("altitude_m"),
        "trained_on": trained_on,
    }


def _identity(store: Store) -> dict[str, Any]:
    place = store.read_table("instrument/telescope", ["x", "y", "z"])
    return {
        "cameras": frozenset(store.group_attrs("instrument/telescope").get("cameras") or ()),
        "telescopes": tuple(map(tuple, np.round(np.stack(list(place.values()), axis=1)).tolist())),
        "models": (store.attrs.get("models") or {}).get("checksum"),
        "program": store.attrs.get("simulation_model"),
    }


def _differ(what: str, *two: tuple[Production, Any]) -> NoReturn:
    (first, before), (second, value) = two
    if what == "cameras":
        text = [", ".join(sorted(names)) or "no camera" for names in (before, value)]
    elif what == "telescopes":
        text = [f"{len(names)} telescopes" for names in (before, value)]
        if text[0] == text[1]:
            text = [f"{text[0]}, the first at {names[0]} m" for names in (before, value)]
    elif what == "models":
        text = [f"models {str(name)[:19]}" for name in (before, value)]
    else:
        text = [f"program '{str(name)[:40]}'" for name in (before, value)]
    hint = "reconstruct all with one file of models" if what == "models" else "give those of one"
    raise AstriError(
        f"The stores do not fit together: {first.path} has {text[0]}, {second.path} has {text[1]}: "
        f"{hint}."
    )


def _check_ways(productions: Sequence[Production]) -> None:
    """Refuse a kind that was thrown in several ways, but for point-like and diffuse ones."""
    seen: dict[Any, Production] = {}
    for item in productions:
        point_like = item.thrown[0].point_like
        if point_like and item.kind != "gamma":
            raise AstriError(
                f"The {item.kind} showers of {item.path} all came from one angle to the pointing, "
                "so they stand for no flux from all sides: give diffuse ones."
            )
        first = seen.setdefault((item.kind, item.pointing, point_like), item)
        if first.way != item.way:
            cones = [
                f"{one.path} (cone {one.way[0]:g} to {one.way[1]:g} deg, cores within "
                f"{one.way[2]:g} m)"
                for one in (first, item)
            ]
            raise AstriError(
                f"The {item.kind} showers of {cones[0]} and of {cones[1]} were thrown in "
                "different ways: give stores of one way."
            )


def _was_trained_on(store: Store) -> bool:
    from astri_gpu.report.trained import was_trained_on

    return was_trained_on(store)
