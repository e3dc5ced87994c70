"""The page of the analysis: one file that needs no other and no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from astri_gpu.report.page import STYLE
from astri_gpu.science.numbers import detection_sentence, spectrum_sentence

__all__ = ["page"]

Numbers = Mapping[str, Any]

MORE_STYLE = """\
p.lead { font-size: 1.15rem; margin: .6rem 0 1rem; }
p.wrong { border-left: 4px solid #d55e00; background: #fdf0e8; padding: .5rem .9rem; }
table.runs td, table.runs th { padding-right: .8rem; font-size: .86rem; white-space: nowrap; }
table td.words { text-align: left; white-space: normal; word-break: break-word; }
details { margin: .8rem 0; } summary { cursor: pointer; color: #5b6273; }
div.wide { overflow-x: auto; }
"""

CAPTIONS = {
    "theta2.png": (
        "Detection",
        "Squared angles between the directions of events and the target (points), and what the "
        "same number of positions about the pointing say is background (grey). Dashed: end of the "
        "on region.",
    ),
    "maps.png": (
        "Sky maps",
        "Counts, excess over the background of a ring about each place, and significance (Li and "
        "Ma), each within the correlation radius. Cross: target; dotted: circles that are left out "
        "of the background. Where the background is understood, the significances outside them "
        "follow the normal curve (dashed).",
    ),
    "flux_points.png": (
        "Spectrum",
        "Model fitted to the counts (forward folding) with its one-sigma band, flux points, and "
        "the Crab nebula as HEGRA measured it for scale. Arrows: upper limits, 95 %.",
    ),
    "light_curve.png": (
        "Light curve",
        "Integral flux for the shape of the fitted spectrum, its weighted mean, and the flux of "
        "that spectrum.",
    ),
}
"""Title and caption of each picture, in the order of the page."""


def page(numbers: Numbers, folder: Path) -> str:
    """Return the HTML of the report.

    Parameters
    ----------
    numbers
        Contents of science.json.
    folder
        Holds the pictures, which go into the page.
    """
    target = numbers["target"]
    title = f"{target['name']}: detection, spectrum, maps"
    fit = numbers["spectrum"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>\n{STYLE}{MORE_STYLE}</style></head><body>",
        f"<h1>{escape(target['name'])}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in numbers["notes"]),
        f'<p class="lead">{escape(detection_sentence(numbers))} '
        f"{escape(spectrum_sentence(numbers))}</p>",
    ]
    if not fit["converged"]:
        text = f"The fit of the spectrum did not converge ({fit['message']}): do not trust it."
        parts.append(f'<p class="wrong">{escape(text)}</p>')
    parts += [f'<p class="note">{escape(text)}.</p>' for text in numbers["warnings"]]
    parts.append(_facts(_overview(numbers)))
    for name, (heading, caption) in CAPTIONS.items():
        parts.append(f"<h2>{escape(heading)}</h2>")
        if (folder / name).is_file():
            data = base64.b64encode((folder / name).read_bytes()).decode("ascii")
            parts.append(
                f'<p><img src="data:image/png;base64,{data}" alt="{escape(heading)}"></p>'
                f'<p class="caption">{escape(caption)}</p>'
            )
        else:
            parts.append(f'<p class="caption">{escape(_why_not(name))}</p>')
        if name == "flux_points.png":
            parts.append(_parameters(fit))
    parts += ["<h2>Runs</h2>", _runs(numbers["runs"])]
    parts += [f'<p class="caption">{escape(text)}</p>' for text in numbers["remarks"]]
    if numbers["left_out"]:
        rows = [(f"run {number}", text) for number, text in numbers["left_out"].items()]
        parts += ["<p>Left out:</p>", _facts(rows)]
    parts += [_details(numbers), _footer(numbers), "</body></html>", ""]
    return "\n".join(parts)


def _why_not(name: str) -> str:
    if name == "maps.png":
        return "No maps: no response has a background model that can be used, see the warnings."
    return "No picture: there is nothing to show."


def _overview(numbers: Numbers) -> list[tuple[str, str]]:
    target, found = numbers["target"], numbers["detection"]
    low, high = numbers["energy_range_tev"]
    rows = [
        ("target (ICRS)", f"RA {target['ra_deg']:.4f}°, Dec {target['dec_deg']:.4f}°"),
        ("runs", f"{len(numbers['runs'])}"),
        ("live time", f"{found['livetime_s'] / 3600:.2f} h"),
        ("energies", f"{low:.3g} to {high:.3g} TeV"),
        ("on region", _on_region(numbers)),
        (
            "events on, off (α)",
            f"{found['n_on']:,}, {found['n_off']:,} ({found['alpha']:.4f})",
        ),
        ("excess", f"{found['excess']:.1f}"),
        ("significance (Li and Ma)", f"{found['significance']:.1f} σ"),
    ]
    if found["excess_upper_limit"] is not None:
        rows.append(("upper limit of the excess (95 %)", f"{found['excess_upper_limit']:.1f}"))
    maps = numbers["maps"]
    if maps:
        rows += [
            (
                "highest significance of the map",
                f"{maps['peak_significance']:.1f} σ, {60 * maps['distance_deg']:.1f}' from it"
                if maps["peak_significance"] is not None
                else "none",
            ),
            (
                "significances outside the circles",
                f"mean {maps['mean']:.2f}, width {maps['width']:.2f}"
                if maps["width"] is not None
                else "none",
            ),
        ]
    curve = numbers["light_curve"]
    if curve and curve["p_value"] is not None:
        rows.append(
            (
                "one flux at all times?",
                f"χ² = {curve['chi2']:.1f} for {curve['n_times'] - 1} degrees of freedom, "
                f"p = {curve['p_value']:.2g}",
            )
        )
    return rows


def _on_region(numbers: Numbers) -> str:
    radius = f"{numbers['on_radius_deg']:.3g}°"
    if numbers["point_like"]:
        return f"RAD_MAX of the responses, up to {radius}"
    return f"{radius} about the target"


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    lines = [
        f'<tr><td>{escape(name)}</td><td class="words">{escape(text)}</td></tr>'
        for name, text in rows
    ]
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _parameters(fit: Numbers) -> str:
    head = "".join(f"<th>{text}</th>" for text in ("parameter", "value", "error", "unit"))
    rows = [f"<tr>{head}</tr>"]
    for entry in fit["parameters"]:
        error = f"{entry['error']:.2g}" if entry["fitted"] else "not fitted"
        unit = entry["unit"] or "–"
        cells = (entry["name"].rstrip("_"), f"{entry['value']:.4g}", error, unit)
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    low, high = fit["energy_range_tev"]
    text = (
        f"Fitted from {low:.3g} to {high:.3g} TeV; W = {fit['statistic']:.1f} for "
        f"{fit['degrees_of_freedom']} degrees of freedom"
    )
    if fit["improvement"] is not None:
        text += f", {fit['improvement']:.1f} less than that of a power law"
    return "<table>\n" + "\n".join(rows) + f'\n</table>\n<p class="caption">{escape(text)}.</p>'


def _runs(rows: Sequence[Numbers]) -> str:
    columns = (
        ("run", "obs_id", "{}"),
        ("start (UTC)", "start", "{}"),
        ("zenith", "zenith_deg", "{:.0f}°"),
        ("offset", "offset_deg", "{:.2f}°"),
        ("live time", "livetime_s", "{:.0f} s"),
        ("above", "energy_min_tev", "{:.2g} TeV"),
        ("on", "n_on", "{:,}"),
        ("off", "n_off", "{:,}"),
        ("off regions", "n_regions", "{}"),
        ("excess", "excess", "{:.1f}"),
        ("σ", "significance", "{:.1f}"),
        ("class", "event_class", "{}"),
    )
    lines = ["<tr>" + "".join(f"<th>{text}</th>" for text, _, _ in columns) + "</tr>"]
    for row in rows:
        cells = ["–" if row[key] is None else form.format(row[key]) for _, key, form in columns]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return '<div class="wide"><table class="runs">\n' + "\n".join(lines) + "\n</table></div>"


def _details(numbers: Numbers) -> str:
    """Return provenance and what the libraries said, folded."""
    record = numbers["provenance"]
    rows = [
        ("step", f"{record['stage']}, {record['software']} {record['version']}"),
        ("done", f"{record['started']} to {record['stopped']}"),
        ("libraries", ", ".join(f"{key} {value}" for key, value in numbers["versions"].items())),
        *(("input", f"{entry['path']} ({entry['checksum'][:23]}…)") for entry in record["inputs"]),
    ]
    text = f"<details><summary>Provenance</summary>{_facts(rows)}</details>"
    told = numbers["library_warnings"]
    if told:
        lines = [(f"{count} ×", words) for words, count in told.items()]
        text += (
            f"<details><summary>Warnings of the libraries ({len(told)})</summary>"
            f"{_facts(lines)}</details>"
        )
    return text


def _footer(numbers: Numbers) -> str:
    origin = " ".join(numbers["notes"])
    return (
        f"<footer><p>{escape(origin)}</p><p>Beside this page: science.json (all numbers), tables "
        "(ECSV), maps.fits, spectrum.yaml (the model), flux_points.fits and light_curve.fits, and "
        "datasets/ (spectra as OGIP files, map dataset). Made by astri-gpu science with "
        f"Gammapy {escape(str(numbers['versions'].get('gammapy', '')))}.</p></footer>"
    )
