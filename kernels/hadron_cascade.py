"""One generation of a cascade of hadrons, on arrays: `hadrons.py` runs one after the other.

Every particle has a name of two 32-bit words, nucleon i of the primary (i, 0), child j of a parent
(a, b) the first words of ``philox(shower, NAME << 24 | j, a, b)``, and draws its numbers with
``philox(shower, HADRON << 24 | index, a, b)`` from its own name (`DRAW_...` in `hadron_physics`),
so that they do not depend on the order of the work. `loops/hadrons.py` is the same text, one
shower at a time.
"""

from math import pi
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int

from . import hadron_physics as model
from ._types import Array, array_namespace
from .hadron_physics import Air
from .random import exponential, philox, uniform
from .simulation_types import Stream

__all__ = ["Children", "Fates", "Hadrons", "Photons", "fates", "kicked", "photons", "pieces"]

HADRON, NAME = Stream.HADRON << 24, Stream.NAME << 24
TWO_PI = 2.0 * pi


class Hadrons(NamedTuple):
    """Particles of a cascade where they are made; positions and directions as in `EmRows`."""

    shower: Int[Array, " n"]  # uint32, number in the production
    a: Int[Array, " n"]  # uint32, name
    b: Int[Array, " n"]
    energy: Float[Array, " n"]  # GeV
    thin_energy: Float[Array, " n"]  # GeV, see `survival_weight`; the same in a whole shower
    height: Float[Array, " n"]  # H, m; infinite for nucleons of the primary
    x: Float[Array, " n"]  # m, of its line at H = 0, relative to the axis of the primary
    y: Float[Array, " n"]
    q_lon: Float[Array, " n"]
    q_lat: Float[Array, " n"]
    is_pion: Bool[Array, " n"]  # a charged pion, not a nucleon


class Fates(NamedTuple):
    """How hadrons end."""

    depth: Float[Array, " n"]  # g/cm2 along its own line, of the interaction that it flies to
    end: Float[Array, " n"]  # H of that, m, 0 on the ground
    interacts: Bool[Array, " n"]  # there, above the ground
    muon_energy: Float[Array, " n"]  # GeV, half-way to the ground
    muon_height: Float[Array, " n"]  # H where the pion decays, m
    has_muon: Bool[Array, " n"]  # it decays, and its muon is seen


class Children(NamedTuple):
    """What interactions make; child 0 is the leading particle."""

    energy: Float[Array, "n child"]
    kind: Int[Array, "n child"]  # CHARGED_PION ..., NOTHING where there is none to follow
    is_complete: Bool[Array, " n"]  # False: there are more pieces than children asked for


class Photons(NamedTuple):
    """Electromagnetic rows of neutral pions, two each; weight 0 where there is none."""

    energy: Float[Array, "n 2"]
    start: Float[Array, "n 2"]
    x: Float[Array, "n 2"]
    y: Float[Array, "n 2"]
    q_lon: Float[Array, "n 2"]
    q_lat: Float[Array, "n 2"]
    weight: Float[Array, "n 2"]


def _draw(particles: Hadrons, index: Any, key: tuple[int, int]) -> tuple:
    return philox(particles.shower, HADRON | index, particles.a, particles.b, key=key)


def fates(hadrons: Hadrons, air: Air, reach: Any, *, key: tuple[int, int]) -> Fates:
    """Return how nucleons and charged pions end: whichever comes first of interaction and decay.

    Parameters
    ----------
    reach : m, muons whose lines pass the axis at H = 0 farther away are not seen
    """
    xp = array_namespace(hadrons.energy)
    path, growth = model.own_line(hadrons.q_lon, hadrons.q_lat, air.tan_zenith)
    stretch = path / growth
    made = model.axis_depth(hadrons.height * growth, air) * stretch
    f0, f1, f2, _ = _draw(hadrons, model.DRAW_FATE, key)
    _, _, _, d3 = _draw(hadrons, model.DRAW_KICK, key)
    length = model.interaction_length(hadrons.energy, hadrons.is_pion)
    depth = made + length * exponential(f0)
    on_axis = depth / stretch
    is_above = on_axis < air.ground
    end = model.axis_height(xp.where(is_above, on_axis, air.ground), air) / growth
    end = xp.where(is_above, end, xp.zeros_like(end))
    flight = model.PION_CTAU / model.PION_MASS * hadrons.energy * exponential(d3)
    decay = hadrons.height - flight / path
    decays = hadrons.is_pion & (decay > end)
    decay = xp.where(decays, decay, xp.zeros_like(decay))
    energy, is_seen = model.decay_muon(
        hadrons.energy, decay, hadrons.q_lon, hadrons.q_lat, f1, f2, air
    )
    is_near = hadrons.x * hadrons.x + hadrons.y * hadrons.y <= reach * reach
    return Fates(depth, end, is_above & ~decays, energy, decay, decays & is_seen & is_near)


def pieces(hadrons: Hadrons, *, key: tuple[int, int], n_pieces: int) -> Children:
    """Return what each hadron would turn into in an interaction, leading particle first.

    A nucleon keeps a share of its energy that is uniform in `NUCLEON_LEADING`, a charged pion
    `PION_LEADING` u^`PION_LEADING_POWER`, in `PION_EXCHANGE` of the cases as a neutral one. Pieces
    take 1 - u^(1/4) each of what is left of the rest, until that is below `MIN_PIECE`.

    Parameters
    ----------
    n_pieces : even; children are 1 + n_pieces
    """
    xp = array_namespace(hadrons.energy)
    _, f1, f2, _ = _draw(hadrons, model.DRAW_FATE, key)
    low, high = model.NUCLEON_LEADING
    leading = xp.where(
        hadrons.is_pion,
        model.PION_LEADING * uniform(f1) ** model.PION_LEADING_POWER,
        low + (high - low) * uniform(f1),
    )
    leading = hadrons.energy * leading

    pair = model.DRAW_PIECES + xp.arange(n_pieces // 2, dtype=xp.int64)[None, :]
    words = philox(
        hadrons.shower[:, None], HADRON + pair, hadrons.a[:, None], hadrons.b[:, None], key=key
    )
    shape = (hadrons.energy.shape[0], n_pieces)
    share = xp.reshape(xp.stack([uniform(words[0]), uniform(words[2])], axis=-1), shape)
    u = xp.reshape(xp.stack([uniform(words[1]), uniform(words[3])], axis=-1), shape)
    kept = xp.sqrt(xp.sqrt(share))
    rest = (hadrons.energy - leading)[:, None]
    after = rest * xp.cumulative_prod(kept, axis=1)
    before = xp.concat([rest, after[:, :-1]], axis=1)
    exists = before >= model.MIN_PIECE

    def kind(is_neutral, is_lost):
        charged = xp.full(is_neutral.shape, model.CHARGED_PION, dtype=xp.int32)
        found = xp.where(is_lost, xp.full_like(charged, model.NOTHING), charged)
        return xp.where(is_neutral, xp.full_like(charged, model.NEUTRAL_PION), found)

    first = kind(uniform(f2) < model.PION_EXCHANGE, xp.zeros_like(hadrons.is_pion))
    first = xp.where(hadrons.is_pion, first, xp.full_like(first, model.NUCLEON))
    others = kind(u < model.NEUTRAL_SHARE, u < model.LOST_SHARE)
    energy = xp.concat([leading[:, None], before * (1.0 - kept)], axis=1)
    kinds = xp.concat([first[:, None], others], axis=1)
    least = xp.where(
        kinds == model.NEUTRAL_PION, model.MIN_GAMMA, xp.full_like(energy, model.MIN_HADRON)
    )
    exists = xp.concat([xp.ones_like(exists[:, :1]), exists], axis=1) & (energy >= least)
    return Children(
        energy,
        xp.where(exists, kinds, xp.full_like(kinds, model.NOTHING)),
        after[:, -1] < model.MIN_PIECE,
    )


def kicked(
    parents: Hadrons,
    child: Int[Array, " n"],
    energy: Float[Array, " n"],
    end: Float[Array, " n"],
    is_pion: Bool[Array, " n"],
    air: Air,
    *,
    key: tuple[int, int],
) -> tuple[Hadrons, Bool[Array, " n"]]:
    """Return children on lines of their own, and whether they are followed if they are hadrons.

    Parameters
    ----------
    parents : of each child
    child : which child of its parent
    energy : of the child, GeV
    end : H where the parent ends, m
    """
    a, b, _, _ = philox(parents.shower, NAME + child, parents.a, parents.b, key=key)
    made = parents._replace(a=a, b=b, energy=energy, height=end, is_pion=is_pion)
    w0, w1, w2, _ = _draw(made, model.DRAW_KICK, key)
    slope = model.transverse_momentum(w0, w1) / energy
    q_lon, q_lat = model.kick(parents.q_lon, parents.q_lat, slope, TWO_PI * uniform(w2))
    made = made._replace(
        x=parents.x + (parents.q_lon - q_lon) * end,
        y=parents.y + (parents.q_lat - q_lat) * end,
        q_lon=q_lon,
        q_lat=q_lat,
    )
    return made, model.is_followed(q_lon, q_lat, air.tan_zenith)


def photons(pions: Hadrons, air: Air, *, key: tuple[int, int]) -> Photons:
    """Return the photons of neutral pions, thinned.

    The energy is shared uniformly (decay into two photons, isotropic in the rest frame); with a
    share s the transverse momentum is m sqrt(s (1 - s)).
    """
    xp = array_namespace(pions.energy)
    w0, w1, w2, w3 = _draw(pions, model.DRAW_FATE, key)
    share = uniform(w0)
    transverse = model.NEUTRAL_PION_MASS * xp.sqrt(share * (1.0 - share))
    azimuth = TWO_PI * uniform(w3)
    rows = []
    for photon, (part, word, sign) in enumerate(((share, w1, 1.0), (1.0 - share, w2, -1.0))):
        energy = pions.energy * part
        q_lon, q_lat = model.kick(pions.q_lon, pions.q_lat, sign * transverse / energy, azimuth)
        path, growth = model.own_line(q_lon, q_lat, air.tan_zenith)
        is_followed = model.is_followed(q_lon, q_lat, air.tan_zenith)
        growth = xp.where(is_followed, growth, xp.ones_like(growth))
        made = model.axis_depth(pions.height * growth, air) * (path / growth)
        s0, s1, _, _ = _draw(pions, model.DRAW_START + photon, key)
        weight = model.survival_weight(energy, pions.thin_energy, word)
        rows.append(
            Photons(
                energy=energy,
                start=model.em_start(made, model.CONVERSION_LENGTH, s0, s1),
                x=pions.x + (pions.q_lon - q_lon) * pions.height,
                y=pions.y + (pions.q_lat - q_lat) * pions.height,
                q_lon=q_lon,
                q_lat=q_lat,
                weight=xp.where(is_followed, weight, xp.zeros_like(weight)),
            )
        )
    return Photons(*(xp.stack(columns, axis=1) for columns in zip(*rows, strict=True)))
