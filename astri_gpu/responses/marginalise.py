"""The response of one observation (IRF3) from that of many pointings (IRF2).

As in A-SciSoft (Donnarumma & Lombardi, DL3 meeting Paris 2016) the weights are the times that the
run spends in bins of zenith and azimuth angle: effective area, energy dispersion, background and
RAD_MAX are means by time, the point spread function by exposure (effective area x time). Responses
are brought to their coarse bins first, as sums of events; only means of finished responses follow.

A-SciSoft weights the background by exposure, which is no more than time where the rate is one per
time of observation, as GADF has it: we weight it by time, so that expected counts are right. The
energy dispersion by time follows A-SciSoft; expected counts would ask for exposure, which
`dispersion_by` offers. Both agree where the effective area hardly changes along the track.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.responses.interpolate import between, bracket
from astri_gpu.responses.irf import Irf

if TYPE_CHECKING:
    from astri_gpu.responses.counts import Irf2

__all__ = ["Track", "average", "marginalise"]

Floats = NDArray[np.float64]

COSINE_BIN = 0.01  # of A-SciSoft's axis of zenith angles
AZIMUTH_BIN_DEG = 10.0


@dataclass(frozen=True)
class Track:
    """Where the array pointed, and for how long.

    Attributes
    ----------
    zenith_deg, azimuth_deg
        (piece,)
    time_s
        Time of observation in each piece, within the good time intervals, (piece,).
    """

    zenith_deg: Floats
    azimuth_deg: Floats
    time_s: Floats

    @classmethod
    def fixed(cls, zenith_deg: float, azimuth_deg: float, time_s: float = 1.0) -> "Track":
        """Return a track of one pointing."""
        return cls(np.array([zenith_deg]), np.array([azimuth_deg]), np.array([time_s]))

    def checked(self) -> "Track":
        """Return the pieces that took time.

        Raises
        ------
        AstriError
            When there are none, or numbers are no angles and times.
        """
        zenith, azimuth, time = np.broadcast_arrays(
            *(np.atleast_1d(np.asarray(part, dtype=float)) for part in self._parts())
        )
        if not np.isfinite([zenith, azimuth, time]).all() or (time < 0).any():
            raise AstriError(
                "The track of the observation holds angles or times that are not finite, or times "
                "below 0: correct the pointing table."
            )
        if (zenith < 0).any() or (zenith >= 90).any():
            raise AstriError(
                f"The track of the observation has zenith angles from {zenith.min():.1f} to "
                f"{zenith.max():.1f} deg, which are not all above the horizon."
            )
        used = time > 0
        if not used.any():
            raise AstriError(
                "The track of the observation is empty: there is no time in its good time "
                "intervals, so no response can be made of it."
            )
        return Track(zenith[used], azimuth[used], time[used])

    def _parts(self) -> tuple[Floats, Floats, Floats]:
        return self.zenith_deg, self.azimuth_deg, self.time_s


class Stay(NamedTuple):
    """The time in one bin of zenith and azimuth angle, with the mean angles there."""

    zenith_deg: float
    azimuth_deg: float
    time_s: float


def marginalise(
    irf2: "Irf2",
    track: Track,
    *,
    max_zenith_distance_deg: float = 5.0,
    dispersion_by: str = "time",
) -> Irf:
    """Return the response of an observation in coarse bins.

    Parameters
    ----------
    irf2
        Sums of the simulated events of one event class at one or more pointings.
    track
        Of the observation.
    max_zenith_distance_deg
        How far outside of the simulated zenith angles the nearest one may stand for the track.
    dispersion_by
        Weights of the energy dispersion: "time" (as A-SciSoft), or "exposure".

    Raises
    ------
    AstriError
        When the track is empty, or leaves the simulated zenith angles by more than that.
    """
    from astri_gpu.responses.normalise import to_irf
    from astri_gpu.responses.regroup import regroup

    irfs = [to_irf(regroup(counts, irf2.binning)) for counts in irf2.counts]
    found = average(
        irfs,
        track,
        max_zenith_distance_deg=max_zenith_distance_deg,
        dispersion_by=dispersion_by,
    )
    return replace(found, meta={**irf2.meta, **found.meta})


def average(
    irfs: Sequence[Irf],
    track: Track,
    *,
    max_zenith_distance_deg: float = 5.0,
    dispersion_by: str = "time",
) -> Irf:
    """Return the mean response along a track of responses at single pointings.

    Parameters
    ----------
    irfs
        Of one event class, in the same bins.
    track, max_zenith_distance_deg, dispersion_by
        As in `marginalise`.

    Returns
    -------
    Irf
        `meta["pointings"]` tells which simulated pointings went in, with which share of the time.
        Errors take the simulated pointings as independent. `n_events` is a mean, too. `valid_tev`
        is the range in which all responses that went in have cuts.

    Raises
    ------
    UsageError
        When `dispersion_by` is unknown.
    AstriError
        As `marginalise`; also when the responses have no range of energies in common.
    """
    if dispersion_by not in ("time", "exposure"):
        raise UsageError(f"The weight of energy dispersions '{dispersion_by}' is unknown.")
    if not irfs:
        raise AstriError("There is no response to be averaged: the file of responses is empty.")
    _check_bins(irfs)
    track = track.checked()
    pointings = [(irf.zenith_deg, irf.azimuth_deg) for irf in irfs]
    total_time = float(track.time_s.sum())
    node_shares = np.zeros(len(irfs))
    parts: list[tuple[float, Irf]] = []
    for stay in _stays(track):
        found = bracket(
            pointings,
            stay.zenith_deg,
            stay.azimuth_deg,
            max_zenith_distance_deg=max_zenith_distance_deg,
        )
        weight = stay.time_s / total_time
        for node, share in zip(found.nodes, found.shares, strict=True):
            node_shares[node] += weight * share
        if len(found.nodes) == 1:
            parts.append((weight, irfs[found.nodes[0]]))
        else:
            low, high = (irfs[node] for node in found.nodes)
            parts.append((weight, between(low, high, found.shares[1], stay.zenith_deg)))
    used = [(share, irf) for share, irf in zip(node_shares, irfs, strict=True) if share > 0]
    return _mean(parts, used, track, dispersion_by)


def _check_bins(irfs: Sequence[Irf]) -> None:
    for irf in irfs[1:]:
        for name, edges in vars(irf.edges).items():
            first = getattr(irfs[0].edges, name)
            if edges.shape != first.shape or not np.allclose(edges, first):
                raise AstriError(
                    f"The responses at zenith angles {irfs[0].zenith_deg:.1f} and "
                    f"{irf.zenith_deg:.1f} deg have different bins of {name}, because one was made "
                    "of diffuse gammas and the other of point-like ones: simulate both alike."
                )


def _stays(track: Track) -> Iterator[Stay]:
    """Yield the time in each bin of cosine and azimuth."""
    cosine = np.cos(np.radians(track.zenith_deg))
    bins = np.stack(
        [np.floor(cosine / COSINE_BIN), np.floor((track.azimuth_deg % 360) / AZIMUTH_BIN_DEG)]
    )
    _, place = np.unique(bins, axis=1, return_inverse=True)
    for number in range(place.max() + 1):
        inside = place.reshape(-1) == number
        time = track.time_s[inside]
        zenith = track.zenith_deg[inside]
        yield Stay(
            # A mean of equal numbers is to be that number.
            zenith[0] if np.ptp(zenith) == 0 else float(np.average(zenith, weights=time)),
            _mean_azimuth(track.azimuth_deg[inside], time),
            float(time.sum()),
        )


def _mean_azimuth(azimuth_deg: Floats, time: Floats) -> float:
    if np.ptp(azimuth_deg) == 0:
        return float(azimuth_deg[0])
    angle = np.radians(azimuth_deg)
    sine, cosine = np.average(np.sin(angle), weights=time), np.average(np.cos(angle), weights=time)
    return float(np.degrees(np.arctan2(sine, cosine)) % 360)


def _mean(
    parts: Sequence[tuple[float, Irf]],
    used: Sequence[tuple[float, Irf]],
    track: Track,
    dispersion_by: str,
) -> Irf:
    """Return the weighted mean of responses; errors are those of the pointings `used`."""
    first = parts[0][1]
    valid = (max(irf.valid_tev[0] for _, irf in used), min(irf.valid_tev[1] for _, irf in used))
    if not valid[0] < valid[1]:
        zeniths = ", ".join(f"{irf.zenith_deg:.1f}" for _, irf in used)
        raise AstriError(
            f"The responses of class {first.event_class} at zenith angles {zeniths} deg have cuts "
            "in no common range of energies: shorten the observation or loosen the cuts."
        )
    meta: dict[str, Any] = {
        **used[0][1].meta,
        "pointings": [
            {"zenith_deg": irf.zenith_deg, "azimuth_deg": irf.azimuth_deg, "share": float(share)}
            for share, irf in used
        ],
    }
    zenith = track.zenith_deg
    mean_zenith = zenith[0] if np.ptp(zenith) == 0 else np.average(zenith, weights=track.time_s)
    mean = replace(
        first,
        zenith_deg=float(mean_zenith),
        azimuth_deg=_mean_azimuth(track.azimuth_deg, track.time_s),
        valid_tev=valid,
        meta=meta,
    )
    if len(used) == 1:
        return mean  # to the bit what was simulated

    def by_time(name: str) -> Floats:
        return np.asarray(sum(weight * getattr(irf, name) for weight, irf in parts))

    def error(name: str) -> Floats:
        return np.sqrt(sum((share * getattr(irf, name)) ** 2 for share, irf in used))

    def distribution(name: str, exposure: bool) -> tuple[Floats, Floats]:
        """Return the mean of a density (E, x, O), and its error, over where there are events."""

        def weigh(share: float, irf: Irf) -> Floats:
            there = getattr(irf, name).sum(axis=1) > 0
            return np.asarray(share * there * (irf.effective_area if exposure else 1.0))

        def safe(group: Sequence[tuple[float, Irf]]) -> Floats:
            total = np.asarray(sum(weigh(*entry) for entry in group))
            return np.where(total > 0, total, 1.0)

        value = sum(weigh(w, irf)[:, None] * getattr(irf, name) for w, irf in parts)
        square = sum(
            (weigh(w, irf)[:, None] * getattr(irf, f"{name}_error")) ** 2 for w, irf in used
        )
        return value / safe(parts)[:, None], np.sqrt(square) / safe(used)[:, None]

    dispersion = distribution("energy_dispersion", dispersion_by == "exposure")
    psf = distribution("psf", True)
    return replace(
        mean,
        effective_area=by_time("effective_area"),
        effective_area_error=error("effective_area_error"),
        energy_dispersion=dispersion[0],
        energy_dispersion_error=dispersion[1],
        psf=psf[0],
        psf_error=psf[1],
        background_2d=by_time("background_2d"),
        background_2d_error=error("background_2d_error"),
        background_3d=by_time("background_3d"),
        background_3d_error=error("background_3d_error"),
        rad_max=None if first.rad_max is None else by_time("rad_max"),
        n_events=by_time("n_events"),
    )
