"""The pictures of the report, each a matplotlib figure; none of them opens a window."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.display import style
from astri_gpu.report.drawing import CHARACTERS_PER_INCH, LINE, LOOKS, log_scale, no_data, tidy
from astri_gpu.science.fitting import SpectrumFit
from astri_gpu.science.light_curve import LightCurve
from astri_gpu.science.maps import SkyMaps
from astri_gpu.science.runs import Target
from astri_gpu.science.theta2 import Theta2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["light_curve_figure", "map_figure", "spectrum_figure", "theta2_figure"]

ON, OFF = LOOKS["gamma"][0], "#8a8f9c"
REFERENCE = LOOKS["proton"][0]
FLUX_UNIT = "erg cm-2 s-1"


def _figure(width: float, height: float, dpi: int, title: str, notes: Sequence[str]) -> "Figure":
    """Return an empty figure with its title, and the origin of simulated data at its foot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    figure.suptitle(title, fontsize=style.FONTS["title"], x=0.01, ha="left")
    if notes:
        figure.supxlabel(
            fill(" ".join(notes), int(CHARACTERS_PER_INCH * width)),
            fontsize=style.FONTS["note"],
            color=style.FAINT,
            x=0.99,
            ha="right",
        )
    return figure


def theta2_figure(found: Theta2 | None, target: Target, dpi: int, notes: Sequence[str]) -> "Figure":
    """Return the events by squared angle from the target and from the off positions."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = _figure(7.5, 4.6, dpi, f"Events around {target.name}", notes)
        axes = figure.subplots()
        if found is None:
            no_data(axes, "no run has room for an off position")
            return figure
        middle = (found.edges[1:] + found.edges[:-1]) / 2
        half = np.diff(found.edges) / 2
        axes.stairs(
            found.background, found.edges, fill=True, color=OFF, alpha=0.35, label="off, scaled"
        )
        axes.errorbar(middle, found.background, found.error, ls="", color=OFF, elinewidth=0.8)
        errors = np.sqrt(found.on)
        axes.errorbar(middle, found.on, errors, half, ls="", color=ON, **_points(), label="on")
        axes.axvline(found.cut_deg2, color=style.INK, lw=0.9, ls="--")
        total = found.total
        text = (
            f"within {np.sqrt(found.cut_deg2):.2g}°: {total.n_on} on, {total.background:.1f} "
            f"background, excess {total.excess:.1f}, {total.significance:.1f} σ"
        )
        axes.set_xlim(0, found.edges[-1])
        axes.set_ylim(0, 1.25 * float(np.max(found.on + errors, initial=1.0)))
        axes.set_xlabel("squared angle from the target  [deg²]")
        axes.set_ylabel("events")
        tidy(axes, text)
    return figure


def _points() -> dict[str, Any]:
    return {key: value for key, value in LINE.items() if key != "lw"}


def map_figure(
    found: SkyMaps,
    target: Target,
    circles: Sequence[tuple[float, float, float]],
    dpi: int,
    notes: Sequence[str],
) -> "Figure":
    """Return maps of counts, excess and significance, and the distribution of the last."""
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = _figure(10.5, 8.6, dpi, f"The sky around {target.name}", notes)
        panels: dict[str, Any] = {}
        wcs = found.layers["counts"].geom.to_image().wcs
        shown = (
            ("counts", "Counts", "viridis", None),
            ("excess", "Excess", "viridis", None),
            ("significance", "Significance  [σ]", "RdBu_r", True),
        )
        for place, (name, title, colours, centred) in enumerate(shown):
            axes = figure.add_subplot(2, 2, place + 1, projection=wcs)
            panels[name] = axes
            values = found.layers[name].data[0]
            options: dict[str, Any] = {"cmap": colours, "origin": "lower"}
            if centred:
                limit = float(np.clip(np.nanmax(np.abs(values), initial=1.0), 5.0, 12.0))
                options |= {"vmin": -limit, "vmax": limit}
            image = axes.imshow(values, **options)
            bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
            bar.outline.set_linewidth(0.4)
            _mark(axes, target, circles)
            axes.set_title(title, fontsize=style.FONTS["panel"] + 1, pad=5)
            axes.set_xlabel("right ascension")
            axes.set_ylabel("declination")
        _draw_distribution(figure.add_subplot(2, 2, 4), found)
    return figure


def _mark(axes: Any, target: Target, circles: Sequence[tuple[float, float, float]]) -> None:
    world = axes.get_transform("icrs")
    axes.plot(
        target.ra_deg,
        target.dec_deg,
        transform=world,
        marker="+",
        ms=11,
        mew=1.3,
        color=style.INK,
        path_effects=style.halo(),
    )
    from astropy import units as u
    from astropy.visualization.wcsaxes import SphericalCircle

    for ra, dec, radius in circles:
        circle = SphericalCircle(
            (ra * u.deg, dec * u.deg),
            radius * u.deg,
            transform=world,
            fc="none",
            ec=style.INK,
            lw=0.8,
            ls=":",
        )
        axes.add_patch(circle)
    axes.coords.grid(color=style.GRID, lw=0.4, alpha=0.5)


def _draw_distribution(axes: "Axes", found: SkyMaps) -> None:
    """Draw how significances outside the excluded circles are distributed, and a normal one."""
    everywhere = found.layers["significance"].data
    everywhere = everywhere[np.isfinite(everywhere)]
    if not len(found.outside):
        no_data(axes, "no pixel is outside the excluded circles")
        return
    low, high = min(-5.0, everywhere.min()), max(5.0, min(everywhere.max(), 15.0))
    edges = np.arange(np.floor(low), np.ceil(high) + 0.25, 0.25)
    shown, counts = (np.histogram(values, edges)[0] for values in (everywhere, found.outside))
    axes.stairs(shown, edges, fill=True, color=ON, alpha=0.25, label="all pixels")
    axes.stairs(counts, edges, color=style.INK, label="outside the circles")
    x = np.linspace(edges[0], edges[-1], 400)
    scale = len(found.outside) * 0.25 / np.sqrt(2 * np.pi)
    axes.plot(x, scale * np.exp(-(x**2) / 2), color=REFERENCE, ls="--", lw=1, label="normal")
    if found.width > 0:
        curve = scale / found.width * np.exp(-(((x - found.mean) / found.width) ** 2) / 2)
        label = f"mean {found.mean:.2f}, width {found.width:.2f}"
        axes.plot(x, curve, color=style.INK, lw=1, label=label)
    axes.set_yscale("log")
    axes.set_ylim(0.5, 3 * max(counts.max(), 1.0))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("significance  [σ]")
    axes.set_ylabel("pixels")
    tidy(axes, "Distribution of significances")


def spectrum_figure(
    fit: SpectrumFit, points: Any, target: Target, dpi: int, notes: Sequence[str]
) -> "Figure":
    """Return flux points and the fitted model with its error band, and the Crab for scale."""
    from astropy import units as u
    from gammapy.modeling.models import create_crab_spectral_model
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = _figure(7.5, 5.2, dpi, f"Spectrum of {target.name}", notes)
        axes = figure.subplots()
        low, high = fit.energy_range_tev
        energy = np.geomspace(low, high, 200)
        spectral = fit.model.spectral_model
        scale = energy**2 * u.TeV**2
        crab = create_crab_spectral_model("hegra")(energy * u.TeV)
        axes.plot(
            energy, _sed(scale * crab), color=REFERENCE, ls="--", lw=1, label="Crab nebula (HEGRA)"
        )
        value = spectral(energy * u.TeV)  # of a faint source only the limits are shown
        if not fit.faint and fit.parameter("amplitude").value > 0:
            axes.plot(energy, _sed(scale * value), color=ON, lw=1.2, label=_words(fit))
            if fit.converged:
                median, below, above = spectral.evaluate_error(energy * u.TeV)
                band = _sed(scale * (median - below)), _sed(scale * (median + above))
                axes.fill_between(energy, *band, color=ON, alpha=0.2, lw=0)
        _draw_points(axes, points)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _limits(axes, _sed(scale * crab), points)
        log_scale(axes.xaxis, *axes.get_xlim())
        log_scale(axes.yaxis, *axes.get_ylim(), plain=False)
        axes.set_xlabel("energy  [TeV]")
        axes.set_ylabel("E² dN/dE  [erg cm⁻² s⁻¹]")
        title = "" if fit.converged else f"The fit did not converge: {fit.message}"
        tidy(axes, title)
    return figure


def _sed(values: Any) -> Any:
    return values.to_value(FLUX_UNIT)


def _words(fit: SpectrumFit) -> str:
    return {
        "power_law": "power law",
        "log_parabola": "log parabola",
        "exp_cutoff": "power law with exponential cutoff",
    }[fit.form]


def _draw_points(axes: "Axes", points: Any) -> None:
    table = points.to_table(sed_type="e2dnde")
    unit = table["e2dnde"].unit
    factor = float((1 * unit).to_value(FLUX_UNIT))
    energy = table["e_ref"].to("TeV").value
    ends = np.stack([energy - table["e_min"].value, table["e_max"].value - energy])
    limit = np.asarray(table["is_ul"], dtype=bool)
    value, error = (factor * np.asarray(table[name]) for name in ("e2dnde", "e2dnde_err"))
    low, high = (factor * np.asarray(table[name]) for name in ("e2dnde_errn", "e2dnde_errp"))
    low, high = (np.where(np.isfinite(side), side, error) for side in (low, high))
    good = ~limit & np.isfinite(value) & (value > 0)
    axes.errorbar(
        energy[good],
        value[good],
        np.stack([low, high])[:, good],
        ends[:, good],
        ls="",
        color=style.INK,
        **_points(),
        label="flux points",
    )
    upper = factor * np.asarray(table["e2dnde_ul"])
    used = limit & np.isfinite(upper) & (upper > 0)
    if used.any():
        axes.errorbar(
            energy[used],
            upper[used],
            0.35 * upper[used],
            ends[:, used],
            uplims=True,
            ls="",
            color=style.FAINT,
            elinewidth=0.8,
            capsize=2,
            label="upper limits (95 %)",
        )


def _limits(axes: "Axes", crab: Any, points: Any) -> None:
    """Show what lies within a few decades of the data and the Crab."""
    table = points.to_table(sed_type="e2dnde")
    factor = float((1 * table["e2dnde"].unit).to_value(FLUX_UNIT))
    value = np.where(table["is_ul"], table["e2dnde_ul"], table["e2dnde"]) * factor
    shown = [crab.min(), crab.max(), *value[np.isfinite(value) & (value > 0)]]
    axes.set_ylim(0.3 * max(min(shown), 1e-4 * max(shown)), 3 * max(shown))


def light_curve_figure(
    found: LightCurve | None,
    fit: SpectrumFit,
    target: Target,
    dpi: int,
    notes: Sequence[str],
) -> "Figure":
    """Return the integral flux against time with its mean and the flux of the spectrum."""
    from astropy import units as u
    from matplotlib import rc_context

    with rc_context(style.STYLE):
        figure = _figure(7.5, 4.2, dpi, f"Light curve of {target.name}", notes)
        axes = figure.subplots()
        if found is None:
            no_data(axes, "no piece of the runs has off regions and safe energies")
            return figure
        table = found.points.to_table(format="lightcurve", sed_type="flux")
        start, stop = (np.asarray(table[name], dtype=float) for name in ("time_min", "time_max"))
        flux, error, upper = (
            np.asarray(table[name], dtype=float).reshape(len(start), -1)[:, 0]
            for name in ("flux", "flux_err", "flux_ul")
        )
        limit = np.asarray(table["is_ul"], dtype=bool).reshape(len(start), -1)[:, 0]
        day = np.floor(start.min())
        # A night of hours, and runs of many nights, each fill the axis.
        hours = stop.max() - start.min() < 1
        factor = 24.0 if hours else 1.0
        middle, half = factor * ((start + stop) / 2 - day), factor * (stop - start) / 2
        good = ~limit & np.isfinite(flux)
        axes.errorbar(
            middle[good], flux[good], error[good], half[good], ls="", color=ON, **_points()
        )
        used = ~good & np.isfinite(upper)
        axes.errorbar(
            middle[used],
            upper[used],
            0.1 * np.abs(upper[used]),
            half[used],
            uplims=True,
            ls="",
            color=style.FAINT,
            elinewidth=0.8,
        )
        low, high = found.energy_range_tev
        model = fit.model.spectral_model.integral(low * u.TeV, high * u.TeV).to_value("cm-2 s-1")
        if model > 0:
            axes.axhline(model, color=style.INK, lw=0.9, label="fitted spectrum")
        if np.isfinite(found.mean):
            more = f"; χ² = {found.chi2:.1f} for {found.n_times - 1}" if found.n_times > 1 else ""
            axes.axhline(found.mean, color=REFERENCE, ls="--", lw=1, label=f"mean{more}")
        tops = np.concatenate([flux[good] + error[good], upper[used], [model, found.mean]])
        bottoms = np.concatenate([flux[good] - error[good], [0.0]])
        axes.set_ylim(min(0.0, 1.1 * np.nanmin(bottoms)), 1.35 * np.nanmax(tops))
        unit = f"hours after MJD {day:.0f}.0 (TT)" if hours else f"days after MJD {day:.0f} (TT)"
        axes.set_xlabel(unit)
        axes.set_ylabel(f"flux above {low:.3g} TeV  [cm⁻² s⁻¹]")
        tidy(axes, "")
    return figure
