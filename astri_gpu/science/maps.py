"""Sky maps: counts, background from a ring about every place, excess and significance."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.science.extraction import Extractor, circle_regions, energy_edges
from astri_gpu.science.runs import Chosen, Faults

if TYPE_CHECKING:
    from astri_gpu.config_science import ScienceConfig

__all__ = ["SkyMaps", "sky_maps"]

Floats = NDArray[np.float64]
MARGIN_DEG = 0.1
SIGMA_RANGE = 5.0  # significances of the normal curve that is fitted: no source reaches in


@dataclass(frozen=True)
class SkyMaps:
    """Maps of the target's surroundings, all energies of the spectrum together.

    `layers` are Gammapy's maps by name: counts, background, excess and significance, each within
    the correlation radius of a pixel's centre; `cube` is the map dataset in bins of energy, with
    its responses, for fits in three dimensions. `outside` are the significances of pixels that are
    in no excluded circle, `width` and `mean` those of their distribution (1 and 0 if the background
    is understood). The `peak` is the place (deg, ICRS) of the highest significance.
    """

    layers: dict[str, Any]
    cube: Any
    outside: Floats
    mean: float
    width: float
    peak_ra_deg: float
    peak_dec_deg: float
    peak_significance: float
    distance_deg: float


def sky_maps(
    chosen: Chosen, extractor: Extractor, config: "ScienceConfig", faults: Faults
) -> SkyMaps | None:
    """Return the maps; None where no run has a background model, which shapes the acceptance."""
    from astropy import units as u
    from gammapy.datasets import MapDataset
    from gammapy.estimators import ExcessMapEstimator
    from gammapy.makers import (
        FoVBackgroundMaker,
        MapDatasetMaker,
        RingBackgroundMaker,
        SafeMaskMaker,
    )
    from gammapy.maps import MapAxis, WcsGeom

    detection = config.detection
    used = [
        (head, observation)
        for head, observation in zip(chosen.heads, chosen.observations, strict=True)
        if "bkg" in observation.available_irfs
    ]
    if len(used) < len(chosen.heads):
        left = [head.obs_id for head in chosen.heads if head not in [entry[0] for entry in used]]
        faults.warn(
            f"The maps are without run{'s' if len(left) > 1 else ''} {', '.join(map(str, left))}: "
            "the response has no background model"
        )
    if not used:
        return None
    edges = energy_edges(*extractor.limits, detection.map_bins_per_decade)
    true = extractor.true_axis.edges.to_value("TeV")
    geom = WcsGeom.create(
        skydir=chosen.target.position,
        width=detection.map_width_deg,
        binsz=detection.map_bin_deg,
        proj="TAN",
        axes=[MapAxis.from_energy_edges(edges, unit="TeV", name="energy")],
    )
    true_axis = MapAxis.from_energy_edges(
        energy_edges(true[0], true[-1], min(10, config.sed.true_bins_per_decade)),
        unit="TeV",
        name="energy_true",
    )
    exclusion = _exclusion(geom.to_image(), chosen, config)
    cube = MapDataset.create(geom, energy_axis_true=true_axis, name="stacked")
    image: Any = None
    selection = ["counts", "exposure", "background", "edisp"]
    if all("psf" in observation.available_irfs for _, observation in used):
        selection.append("psf")
    make = MapDatasetMaker(selection=selection)
    safe = SafeMaskMaker(methods=["offset-max"], offset_max=config.max_offset_deg * u.deg)
    scale = FoVBackgroundMaker(method="scale", exclusion_mask=exclusion)
    ring = RingBackgroundMaker(
        r_in=detection.ring_radius_deg * u.deg,
        width=detection.ring_width_deg * u.deg,
        exclusion_mask=exclusion,
    )
    for head, observation in used:
        empty = MapDataset.create(geom, energy_axis_true=true_axis, name=str(head.obs_id))
        dataset = scale.run(safe.run(make.run(empty, observation), observation), observation)
        cube.stack(dataset)
        with_ring = ring.run(_flat(dataset), observation)
        if image is None:
            image = with_ring
        else:
            image.stack(with_ring)
    estimator = ExcessMapEstimator(
        correlation_radius=detection.correlation_deg * u.deg, selection_optional=[]
    )
    found = estimator.run(image)
    layers = {
        "counts": found.counts,
        "background": found.npred_background,
        "excess": found.npred_excess,
        "significance": found.sqrt_ts,
    }
    return _judged(layers, cube, exclusion, chosen)


def _flat(dataset: Any) -> Any:
    """Return counts and background of a dataset summed over energy, without responses."""
    from gammapy.datasets import MapDataset

    flat = dataset.to_image(name=dataset.name)
    return MapDataset(
        counts=flat.counts,
        background=flat.npred_background(),
        mask_safe=flat.mask_safe,
        gti=flat.gti,
        name=flat.name,
    )


def _exclusion(geom: Any, chosen: Chosen, config: "ScienceConfig") -> Any:
    """Return the map of the places that may be background."""
    target = chosen.target
    circles = list(config.circles())
    if config.detection.exclude_target_deg:
        circles.append((target.ra_deg, target.dec_deg, config.detection.exclude_target_deg))
    if not circles:
        from gammapy.maps import Map

        return Map.from_geom(geom, data=np.ones(geom.data_shape, dtype=bool))
    return geom.region_mask(circle_regions(circles), inside=False)


def _judged(layers: dict[str, Any], cube: Any, exclusion: Any, chosen: Chosen) -> SkyMaps:
    from scipy.stats import norm

    significance = layers["significance"].data[0]
    outside = significance[exclusion.data & np.isfinite(significance)]
    near = outside[np.abs(outside) < SIGMA_RANGE]
    mean, width = norm.fit(near) if len(near) > 1 else (np.nan, np.nan)
    if not np.isfinite(significance).any():
        place, peak = chosen.target.position, np.nan
    else:
        row, column = np.unravel_index(np.nanargmax(significance), significance.shape)
        place = layers["significance"].geom.to_image().pix_to_coord((column, row))
        peak = float(significance[row, column])
    from astropy.coordinates import SkyCoord

    if not isinstance(place, SkyCoord):
        place = SkyCoord(*place, frame="icrs")
    return SkyMaps(
        layers=layers,
        cube=cube,
        outside=outside,
        mean=float(mean),
        width=float(width),
        peak_ra_deg=float(place.ra.deg),
        peak_dec_deg=float(place.dec.deg),
        peak_significance=peak,
        distance_deg=float(place.separation(chosen.target.position).deg),
    )
