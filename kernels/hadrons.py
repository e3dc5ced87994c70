"""Cascades of hadrons in air: what becomes of primary particles, as rows of light sources.

A primary turns into electromagnetic (sub-)showers and muons, each a line of its own:

* gamma, electron: one electromagnetic row; muon: one muon row
* proton: nucleons and charged pions interact or decay, generation by generation; the photons of
  neutral pions become electromagnetic rows, the muons of charged pions muon rows
* helium: superposition, four nucleons of a quarter of the energy, each with a cascade of its own
  along the same line; they interact independently, so that helium showers fluctuate less here than
  real ones, whose nucleons interact several at a time

Rows are ordered generation by generation, parents in order, children in order.
`loops/hadrons.py` is the same text, one shower at a time.

A generation is an array of ever another length: the host cuts it into batches, pads them to one of
two sizes for backends that compile, and keeps what the masks say.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from . import hadron_physics as model
from ._types import Array, array_namespace
from .hadron_cascade import Fates, Hadrons, fates, kicked, photons, pieces
from .hadron_physics import Air, air_of
from .random import exponential, key_of, philox
from .simulation_types import (
    ELECTRON,
    GAMMA,
    HELIUM,
    MUON,
    PROTON,
    EmRows,
    MuonRows,
    Primaries,
    ProductionSettings,
    ShowerRows,
    StepGrid,
    Stream,
    Telescopes,
)

__all__ = ["check_primary", "develop_arrays", "first_conversion", "muon_reach", "nucleons_of"]

FIRST = Stream.FIRST << 24

MUON_MARGIN = 300.0
"""Muons that pass the outermost place of a telescope by more than this (m) are dropped; their light
falls within a quarter of a kilometre."""
BATCHES = (256, 4096)
"""Particles that are worked on at a time, so that a compiler sees two shapes only."""
FEWEST_PIECES = 32
"""Pieces that are made room for; twice as many, and again, where interactions have more."""


@runtime_checkable
class ArrayBackend(Protocol):
    """What is needed of a backend here."""

    fixed_shape: bool
    """Whether batches are padded, so that nothing is compiled twice."""

    def asarray(self, values: Any) -> Any:
        """Return a NumPy array where the backend computes."""

    def to_host(self, values: Any) -> Any:
        """Return an array as a NumPy array."""

    def compile(self, function: Any, static: tuple[str, ...] = ()) -> Any:
        """Return a function compiled, with static arguments by keyword."""


def nucleons_of(primary: int) -> int:
    """Return the number of nucleons of a primary, 0 for particles that are not nuclei."""
    return {PROTON: 1, HELIUM: 4}.get(primary, 0)


def check_primary(primary: int) -> None:
    """Raise a `ValueError` for a particle that the model does not have."""
    if primary not in (GAMMA, ELECTRON, MUON, PROTON, HELIUM):
        raise ValueError(f"there is no model for primary {primary}")


def muon_reach(settings: ProductionSettings, telescopes: Telescopes) -> float:
    """Return how far from the axis (m, at H = 0) a muon may be seen, wherever the core is."""
    array = float(np.max(np.hypot(telescopes.x, telescopes.y), initial=0.0))
    return settings.scatter_radius_m + array + MUON_MARGIN


def first_conversion(
    shower: Array, *, is_gamma: bool, key: tuple[int, int]
) -> tuple[Float[Array, " shower"], Float[Array, " shower"]]:
    """Return where electromagnetic primaries convert first and where their rows start, g/cm2.

    Parameters
    ----------
    shower : (shower,), uint32, number in the production
    is_gamma : True for photons (mean 9/7 radiation lengths), False for electrons (0.49)
    """
    xp = array_namespace(shower)
    length = model.CONVERSION_LENGTH if is_gamma else model.ELECTRON_LENGTH
    w0, w1, _, _ = philox(shower, FIRST, 0, 0, key=key)
    first = length * exponential(w0)
    return first, model.em_start(xp.zeros_like(first), length, w0, w1)


def develop_arrays(
    backend: ArrayBackend,
    primaries: Primaries,
    settings: ProductionSettings,
    grid: StepGrid,
    telescopes: Telescopes,
) -> ShowerRows:
    """Return the rows of showers.

    Parameters
    ----------
    backend : where the arrays of a generation are worked on
    primaries, grid, telescopes : NumPy arrays

    Returns
    -------
    rows : NumPy arrays. Nuclei above `MAX_ENERGY`, and those with less than `MIN_HADRON` for each
        nucleon, have none, and an infinite first interaction. `first_interaction` is the first one
        of the nucleons of helium, the first conversion of a photon or electron (its row starts a
        random shift away), and where a muon was produced.

    Raises
    ------
    ValueError
        For a primary that the model does not have.

    Notes
    -----
    Single muons are produced at `MUON_PRIMARY_HEIGHT`; their energy is the one of the row, without
    loss and decay, because they are thrown for the rings that they leave.
    """
    check_primary(settings.primary)
    air = air_of(grid)
    if nucleons_of(settings.primary):
        return _develop_nuclei(backend, primaries, settings, air, muon_reach(settings, telescopes))
    shower, energy, q_lon, q_lat = primaries
    nothing = np.zeros_like(energy)
    one_each = np.arange(len(energy) + 1, dtype=np.int64)
    no_rows = np.empty(0)
    none_start = np.zeros_like(one_each)
    if settings.primary == MUON:
        height = np.full_like(energy, model.MUON_PRIMARY_HEIGHT)
        path, growth = model.own_line(q_lon, q_lat, air.tan_zenith)
        first = model.axis_depth(height * growth, air) * (path / growth)
        muon = MuonRows(energy, nothing, nothing, q_lon, q_lat, height)
        return ShowerRows(EmRows(*7 * (no_rows,)), none_start, muon, one_each, first)
    convert = backend.compile(first_conversion, static=("is_gamma", "key"))
    found = convert(
        backend.asarray(shower), is_gamma=settings.primary == GAMMA, key=key_of(settings.seed)
    )
    first, start = map(backend.to_host, found)
    em = EmRows(energy, start, nothing, nothing, q_lon, q_lat, np.ones_like(energy))
    return ShowerRows(em, one_each, MuonRows(*6 * (no_rows,)), none_start, first)


def _develop_nuclei(
    backend: ArrayBackend,
    primaries: Primaries,
    settings: ProductionSettings,
    air: Air,
    reach: float,
) -> ShowerRows:
    n_showers, n_nucleons = len(primaries.shower), nucleons_of(settings.primary)
    energy = primaries.energy
    each = energy / n_nucleons
    row = np.nonzero((each >= model.MIN_HADRON) & (energy <= model.MAX_ENERGY))[0]
    hadrons = _nucleons(_take(primaries, row), n_nucleons, settings.thinning)
    row_of = np.repeat(row, n_nucleons)
    run = _Runner(backend, air, key_of(settings.seed))
    depth = []
    em, em_row, muon, muon_row = [], [], [], []
    generation = 0
    while len(row_of):
        hadrons_next, row_next = [], []
        for start in range(0, len(row_of), BATCHES[-1]):
            part = slice(start, start + BATCHES[-1])
            own, own_row = _take(hadrons, part), row_of[part]
            fate = run(fates, (own,), reach)
            if generation == 0:
                depth.append(fate.depth)
            seen = fate.has_muon
            muon.append(_muons(_take(own, seen), _take(fate, seen)))
            muon_row.append(own_row[seen])
            parents, own_row, end = _take(own, fate.interacts), own_row[fate.interacts], fate.end
            index, child, child_energy, kind = _children(run, parents)
            made, is_followed = run(
                kicked,
                (
                    _take(parents, index),
                    child,
                    child_energy,
                    end[fate.interacts][index],
                    kind == model.CHARGED_PION,
                ),
            )
            own_row = own_row[index]
            is_neutral = kind == model.NEUTRAL_PION
            light = run(photons, (_take(made, is_neutral),))
            kept = light.weight > 0
            em.append(EmRows(*_take(light, kept)))
            em_row.append(np.repeat(own_row[is_neutral], np.sum(kept, axis=1)))
            goes_on = is_followed & ~is_neutral
            hadrons_next.append(_take(made, goes_on))
            row_next.append(own_row[goes_on])
        hadrons, row_of = _join(hadrons_next), np.concatenate(row_next)
        generation += 1
    first = np.full(n_showers, np.inf)
    if depth:
        first[row] = np.min(np.reshape(np.concatenate(depth), (-1, n_nucleons)), axis=1)
    em_rows, em_start = _by_shower(em, em_row, EmRows, n_showers)
    muon_rows, muon_start = _by_shower(muon, muon_row, MuonRows, n_showers)
    return ShowerRows(em_rows, em_start, muon_rows, muon_start, first)


def _nucleons(primaries: Primaries, n_nucleons: int, thinning: float) -> Hadrons:
    """Return the first generation."""
    shower, energy, q_lon, q_lat = (np.repeat(column, n_nucleons) for column in primaries)
    nothing = np.zeros_like(energy)
    return Hadrons(
        shower=shower,
        a=np.tile(np.arange(n_nucleons, dtype=np.uint32), len(primaries.shower)),
        b=np.zeros_like(shower),
        energy=energy / n_nucleons,
        thin_energy=np.maximum(model.MIN_THIN, thinning * energy),
        height=np.full_like(energy, np.inf),
        x=nothing,
        y=nothing,
        q_lon=q_lon,
        q_lat=q_lat,
        is_pion=np.zeros(len(energy), dtype=np.bool_),
    )


def _muons(pions: Hadrons, fate: Fates) -> MuonRows:
    return MuonRows(fate.muon_energy, pions.x, pions.y, pions.q_lon, pions.q_lat, fate.muon_height)


def _children(run: "_Runner", hadrons: Hadrons) -> tuple:
    """Return parent, number, energy and kind of the children of hadrons that interact."""
    top = np.max(hadrons.energy, initial=2 * model.MIN_PIECE) / model.MIN_PIECE
    mean = 4 * np.log(top)
    n_pieces = FEWEST_PIECES
    while True:
        # Numbers of pieces follow Poisson: these are the likely ones, and then all.
        if n_pieces >= min(mean + 3 * np.sqrt(mean), model.MAX_PIECES):
            children = run(pieces, (hadrons,), n_pieces=n_pieces)
            if n_pieces >= model.MAX_PIECES or np.all(children.is_complete):
                break
        n_pieces *= 2
    parent, child = np.nonzero(children.kind != model.NOTHING)
    return parent, child, children.energy[parent, child], children.kind[parent, child]


def _take(tree, index):
    return type(tree)(*(column[index] for column in tree))


def _join(parts):
    return type(parts[0])(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _by_shower(parts: list, row_of: list, kind: Any, n_showers: int) -> tuple:
    """Return the rows of all generations sorted by shower, and where each shower starts."""
    start = np.zeros(n_showers + 1, dtype=np.int64)
    if not parts:
        return kind(*(np.empty(0) for _ in kind._fields)), start
    row = np.concatenate(row_of)
    start[1:] = np.cumsum(np.bincount(row, minlength=n_showers))
    return _take(_join(parts), np.argsort(row, kind="stable")), start


class _Runner:
    """Runs a function of one generation on a backend, batch by batch, NumPy in and out."""

    def __init__(self, backend: ArrayBackend, air: Air, key: tuple[int, int]) -> None:
        self._backend, self._key = backend, key
        self._air = air
        self._device_air = air._replace(
            fall=backend.asarray(air.fall), log_depth=backend.asarray(air.log_depth)
        )

    def __call__(self, function: Any, batch: tuple, *shared: Any, **static: Any) -> Any:
        """Return function(*batch, air, *shared, ...); `pieces` does without the air."""
        static["key"] = self._key
        n = len(_leaves(batch)[0])
        needs_air = function is not pieces
        if n == 0:
            return function(*batch, *(needs_air * (self._air,)), *shared, **static)
        shared = (*(needs_air * (self._device_air,)), *shared)
        compiled = self._backend.compile(function, static=tuple(static))
        if not self._backend.fixed_shape:
            found = compiled(*_convert(batch, self._backend.asarray), *shared, **static)
            return _convert(found, self._backend.to_host)
        parts = []
        for start in range(0, n, BATCHES[-1]):
            used = min(n - start, BATCHES[-1])
            size = BATCHES[0] if used <= BATCHES[0] else BATCHES[-1]
            padded = _convert(
                batch,
                lambda column, start=start, used=used, size=size: self._backend.asarray(
                    np.pad(column[start : start + used], (0, size - used), mode="edge")
                ),
            )
            found = compiled(*padded, *shared, **static)
            parts.append(
                _convert(found, lambda column, used=used: self._backend.to_host(column)[:used])
            )
        if len(parts) == 1:
            return parts[0]
        joined = iter([np.concatenate(c) for c in zip(*map(_leaves, parts), strict=True)])
        return _convert(parts[0], lambda _: next(joined))


def _leaves(tree) -> list:
    """Return the arrays of nested tuples."""
    return [leaf for item in tree for leaf in _leaves(item)] if isinstance(tree, tuple) else [tree]


def _convert(tree: Any, function: Any) -> Any:
    """Return nested tuples with `function` applied to each array."""
    if not isinstance(tree, tuple):
        return function(tree)
    items = [_convert(item, function) for item in tree]
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
