"""Responses as smooth functions of the zenith angle, to test with."""

import importlib

import numpy as np
from scipy.special import erf

from astri_gpu.responses.irf import Edges, Irf
from tests.conftest import missing


def gammapy_part(name: str):
    """Return a module of gammapy, or skip."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing("science", "gammapy is not installed (pip install 'astri_gpu[science]')")


def made_edges(n_energy: int = 50, n_offset: int = 10) -> Edges:
    """Return bins like those of `binning=default`, coarse, or fewer."""
    return Edges(
        true_energy=np.geomspace(0.1, 300, n_energy + 1),
        reco_energy=np.geomspace(0.1, 300, n_energy // 2 + 1),
        offset=np.linspace(0, 5, n_offset + 1),
        migra=np.geomspace(0.2, 5, 61),
        rad=np.linspace(0, 1, 101),
        detector=np.linspace(-5, 5, 11),
    )


def made_irf(
    zenith_deg: float,
    azimuth_deg: float = 0.0,
    *,
    edges: Edges | None = None,
    point_like: bool = False,
    **meta,
) -> Irf:
    """Return a response whose every number is a smooth function of the zenith angle.

    Areas and thresholds rise with 1/cos(zenith), resolutions worsen. Energies below 0.2 TeV have no
    events.
    """
    edges = edges or made_edges()
    slant = 1 / np.cos(np.radians(zenith_deg))
    energy = np.sqrt(edges.true_energy[1:] * edges.true_energy[:-1])[:, None]
    reco = np.sqrt(edges.reco_energy[1:] * edges.reco_energy[:-1])[:, None]
    offset = (edges.offset[1:] + edges.offset[:-1])[None, :] / 2
    side = (edges.detector[1:] + edges.detector[:-1]) / 2
    there = (energy > 0.2) & (offset > 0)
    area = 1e6 * slant**2 * (energy / slant**3) ** 1.5 / (1 + (energy / slant**3) ** 1.5)
    area = np.where(there, area * np.exp(-((offset / 4) ** 2)), 0.0)
    width = 0.1 * slant * (1 + 0.05 * offset) * np.ones_like(energy)
    bound = (np.log(edges.migra)[None, :, None]) / width[:, None, :] / np.sqrt(2)
    share = np.diff(erf(bound), axis=1) / 2
    share /= share.sum(axis=1, keepdims=True)
    migration = share / np.diff(edges.migra)[:, None] * there[:, None, :]
    spread = 0.1 * slant * (1 + 0.05 * offset) * energy**-0.1
    tail = np.exp(-(edges.rad[None, :, None] ** 2) / (2 * spread[:, None, :] ** 2))
    solid = 2 * np.pi * -np.diff(np.cos(np.radians(edges.rad)))
    ring = -np.diff(tail, axis=1) / (tail[:, :1] - tail[:, -1:])
    psf = ring / solid[:, None] * there[:, None, :]
    rate = 1e-5 * slant * reco**-2.7
    ring_rate = rate * np.exp(-((offset / 4) ** 2))
    square = side[:, None] ** 2 + 2 * side[None, :] ** 2  # DETX is not DETY
    field = rate[:, :, None] * np.exp(-square[None] / 16)
    n_events = np.where(there, 1000.0, 0.0)
    return Irf(
        event_class="cc03",
        zenith_deg=zenith_deg,
        azimuth_deg=azimuth_deg,
        edges=edges,
        point_like=point_like,
        effective_area=area,
        effective_area_error=area * 0.03,
        energy_dispersion=migration,
        energy_dispersion_error=migration * 0.1,
        psf=psf,
        psf_error=psf * 0.1,
        background_2d=ring_rate,
        background_2d_error=ring_rate * 0.2,
        background_3d=field,
        background_3d_error=field * 0.2,
        rad_max=0.1 * slant * np.ones_like(ring_rate) if point_like else None,
        n_events=n_events,
        valid_tev=(0.3, 100.0),
        meta={"models": "abc", "simulation_model": "Fast model, made", **meta},
    )
