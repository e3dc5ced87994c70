"""The page of a report: numbers in a table, pictures with captions, plain HTML without scripts."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from astri_gpu.report.reconstructed import ENERGETIC_TEV, GROUPS, MANY_IMAGES, NEAR_M, WELL_SEEN

__all__ = ["CAPTIONS", "STYLE", "page"]

_THROWN = (
    "No cut on gammaness and no weights: showers of any direction and core distance, with the "
    "spectrum they were thrown with, are in it."
)
CAPTIONS = {
    "event.png": (
        "An event of the array",
        "Camera images of one shower with the pixels that survive cleaning and the Hillas ellipse; "
        "the image axes on the ground, where they meet at the core, and in the field of view, "
        "where they meet at the direction.",
    ),
    "parameters.png": (
        "Image parameters",
        "All images with parameters, without weights: the thrown spectrum is in these "
        "distributions.",
    ),
    "effective_area.png": (
        "Effective area before cuts",
        "Thrown area times the share of thrown showers that trigger a telescope (and that get a "
        "stereo geometry). Bars: one sigma of a binomial share (Wilson).",
    ),
    "errors.png": (
        "Errors of the stereo reconstruction",
        "Angle between reconstructed and true direction and distance of the cores. Vertical bars: "
        "statistical interval of the containment; horizontal bars: bins of energy. Without cuts: "
        "showers far outside the array, most of them of high energy, are in it.",
    ),
    "scores.png": (
        "Gammas and others",
        "Scores of the forests, of events and of single images: what is kept of gammas and of the "
        "other particles for every cut, the area under that curve in bins of reconstructed energy, "
        f"and the distributions of the scores. {_THROWN}",
    ),
    "energy.png": (
        "Energy",
        "Median and half of the central 68 % of (E reco - E true) / E true, for all reconstructed "
        "events and for each quarter by expected error, and how true energies migrate. A bias "
        "beyond 100 % is left out of the picture. Dashed: "
        f"what the ASTRI project states for the Mini-Array (astri.inaf.it). {_THROWN}",
    ),
    "direction.png": (
        "Direction",
        "Angles that contain 68 % of the direction errors: stereo geometry alone, displacements of "
        "the images alone, and the two merged, on the same events; each quarter by expected error; "
        "and against the offset of the source. Dashed: what the ASTRI project states for the "
        f"Mini-Array (astri.inaf.it). {_THROWN}",
    ),
    "importances.png": (
        "Feature importances",
        "Loss of the score of each ensemble when one of its features is shuffled (permutation "
        "importance), as found in training, on predictions out of sample.",
    ),
}
"""Title and caption of each picture, in the order of the page."""

STYLE = """\
:root { color-scheme: light; }
body { margin: 2.5rem auto; max-width: 62rem; padding: 0 1.2rem; color: #1b1e28;
  font: 16px/1.55 system-ui, sans-serif; background: #fff; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; }
p.note { border-left: 4px solid #e69f00; background: #fff8ea; padding: .5rem .9rem; }
p.caption, footer { color: #5b6273; font-size: .9rem; }
table { border-collapse: collapse; font-size: .92rem; margin-bottom: 1.2rem; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: right; border-bottom: 1px solid #e3e6ec; }
th:first-child, td:first-child { text-align: left; font-weight: normal; color: #5b6273; }
img { max-width: 100%; height: auto; border: 1px solid #e3e6ec; border-radius: 4px; }
"""

Numbers = Mapping[str, Any]


def _count(value: Any) -> str:
    return f"{value:,}"


def _percent(value: Any) -> str:
    return f"{value:.2%}" if value < 0.1 else f"{value:.1%}"


def _signed(value: Any) -> str:
    return f"{value:+.1%}"


def _plain(value: Any) -> str:
    return f"{value:.4g}"


def _span(unit: str) -> Callable[[Any], str]:
    def text(value: Any) -> str:
        low, high = value
        return "" if low is None or high is None else f"{low:g} to {high:g} {unit}"

    return text


def _angle(value: Any) -> str:
    return f"{value:.3f}° ({60 * value:.1f}')"


def _rate(part: str, factor: float, unit: str) -> Callable[[Any], str]:
    def text(rate: Any) -> str:
        value = factor * rate[part]
        return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"

    return text


# What each row of the table says, from which number, and how it is written.
_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("energies thrown", "energy_range_tev", _span("TeV")),
    ("spectral index", "spectral_index", _plain),
    ("view cone", "view_cone_deg", _span("deg")),
    ("scatter radius", "scatter_radius_m", lambda value: f"{value:g} m"),
    ("altitude of the pointing", "altitude_deg", lambda value: f"{value:g}°"),
    ("thrown (uses of showers)", "thrown", _count),
    ("events: at least one telescope triggers", "events", _count),
    ("share of the thrown", "fraction_triggered", _percent),
    ("triggers of telescopes", "telescope_triggers", _count),
    ("images with parameters", "images", _count),
    ("images per million thrown", "images_per_million_thrown", lambda value: f"{value:,.0f}"),
    ("images per event that has any", "images_per_event", _plain),
    ("images that are alone in their event", "mono_image_share", _percent),
    ("events with stereo geometry", "reconstructed", _count),
    ("direction error, 68 % contained", "direction_error_68_deg", _angle),
    (
        f"the same, {MANY_IMAGES} images or more, core < {NEAR_M:g} m",
        "direction_error_68_deg_well_seen",
        _angle,
    ),
    ("core error, 68 % contained", "core_error_68_m", lambda value: f"{value:.1f} m"),
)
# Rows of rates by particle: text, which rate, factor from Hz, unit.
_RATES: dict[str, tuple[tuple[str, str, float, str], ...]] = {
    "gamma": (
        ("gammas of a source like the Crab nebula", "array", 3600.0, "per hour"),
        ("those with stereo geometry", "reconstructed", 3600.0, "per hour"),
    ),
    "proton": (
        ("protons: rate of the array, any telescope", "array", 1.0, "Hz"),
        ("protons: rate of a telescope, mean", "telescope", 1.0, "Hz"),
    ),
}


# The same for DL2b stores; keys of the part "reconstruction" of the numbers.
_RECO_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("models", "models", str),
    ("images with predictions", "images", _count),
    ("events with energy, gammaness and direction", "events", _count),
    ("energy: bias (median)", "energy_bias", _signed),
    ("energy: resolution", "energy_resolution", _percent),
    (f"energy: bias above {ENERGETIC_TEV:g} TeV", "energy_bias_above_10_tev", _signed),
    (f"energy: resolution above {ENERGETIC_TEV:g} TeV", "energy_resolution_above_10_tev", _percent),
    ("direction error, 68 % contained", "direction_68_deg", _angle),
    (f"the same above {ENERGETIC_TEV:g} TeV", "direction_68_deg_above_10_tev", _angle),
    *(
        (f"the same: {text}", f"by_group/{group}/direction_68_deg", _angle)
        for group, text in GROUPS.items()
        if group
    ),
    (
        f"{GROUPS[WELL_SEEN]}, above {ENERGETIC_TEV:g} TeV",
        f"by_group/{WELL_SEEN}/direction_68_deg_above_10_tev",
        _angle,
    ),
    ("events with stereo geometry too", "events_with_geometry", _count),
    *(
        (f"direction error of these: {text}", f"direction_68_deg_with_geometry/{name}", _angle)
        for name, text in (
            ("merged", "merged"),
            ("geometry", "geometry alone"),
            ("displacement", "displacement alone"),
        )
    ),
    *(
        (
            f"share of events within the expected error of {name} (68 % is meant)",
            f"share_within_expected_error/{name}/share",
            _percent,
        )
        for name in ("direction", "energy")
    ),
)


def page(
    title: str,
    numbers: Mapping[str, Numbers],
    pictures: Sequence[str],
    notes: Sequence[str],
    comparisons: Sequence[Numbers] = (),
    tables: Sequence[str] = (),
) -> str:
    """Return the HTML of a report.

    Parameters
    ----------
    title
        Heading.
    numbers
        Numbers of each sample by label, as `astri_gpu.report.numbers.summary` gives them.
    pictures
        Names of the PNG files beside the page, keys of `CAPTIONS`.
    notes
        Sentences that the reader must not miss.
    comparisons
        Gammas against other particles, as `astri_gpu.report.separation.separation_numbers` gives
        them.
    tables
        Names of the files of tables beside the page.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>\n{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        "<h2>Numbers</h2>",
        _table(numbers),
    ]
    if any(entry["reconstruction"] is not None for entry in numbers.values()):
        parts += ["<h2>Energy, class and direction</h2>", _reconstruction(numbers)]
    if comparisons:
        parts.append(_comparisons(comparisons))
    for name in pictures:
        heading, caption = CAPTIONS[name]
        parts += [
            f"<h2>{escape(heading)}</h2>",
            f'<p><img src="{escape(name)}" alt="{escape(heading)}"></p>',
            f'<p class="caption">{escape(caption)}</p>',
        ]
    if tables:
        links = ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in tables)
        parts.append(f'<p class="caption">Curves as tables (ECSV): {links}.</p>')
    parts += [
        '<footer><p>All numbers, by energy too, are in <a href="summary.json">summary.json</a>. '
        "Made by astri-gpu report.</p></footer>",
        "</body></html>",
        "",
    ]
    return "\n".join(parts)


def _table(numbers: Mapping[str, Numbers]) -> str:
    head = "".join(f"<th>{escape(label)}</th>" for label in numbers)
    rows = [f"<tr><th></th>{head}</tr>"]
    for text, key, write in _ROWS:
        rows.append(_row(text, [entry[key] for entry in numbers.values()], write))
    for particle, lines in _RATES.items():
        values = [
            entry["rates_hz"] if entry["particle"] == particle else None
            for entry in numbers.values()
        ]
        rows += [
            _row(text, values, _rate(part, factor, unit)) for text, part, factor, unit in lines
        ]
    return "<table>\n" + "\n".join(row for row in rows if row) + "\n</table>" + _spectra(numbers)


def _reconstruction(numbers: Mapping[str, Numbers]) -> str:
    """Return the table of the numbers of DL2b stores."""
    head = "".join(f"<th>{escape(label)}</th>" for label in numbers)
    rows = [f"<tr><th></th>{head}</tr>"]
    for text, keys, write in _RECO_ROWS:
        values: list[Any] = [entry["reconstruction"] for entry in numbers.values()]
        for key in keys.split("/"):
            place: Any = int(key) if key.isdecimal() else key
            values = [None if value is None else value[place] for value in values]
        rows.append(_row(text, values, write))
    return "<table>\n" + "\n".join(row for row in rows if row) + "\n</table>"


def _comparisons(comparisons: Sequence[Numbers]) -> str:
    """Return the table of gammas against other particles."""
    head = ("", "area under the ROC", "best quality factor", "at gammaness", "gammas", "others")
    rows = ["<tr>" + "".join(f"<th>{text}</th>" for text in head) + "</tr>"]
    for entry in comparisons:
        cells = (
            f"{entry['signal']} / {entry['background']}, {entry['level']}s",
            f"{entry['auc']:.4f} ± {entry['auc_error']:.4f}",
            _or_dash(entry["best_quality_factor"], ".2f"),
            _or_dash(entry["best_quality_cut"], ".3f"),
            _count(entry["n_signal"]),
            _count(entry["n_background"]),
        )
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    text = (
        "Quality factor: share of the gammas kept / root of the share of the others kept, the "
        "largest of all cuts that leave ten of the others."
    )
    return "<table>\n" + "\n".join(rows) + f'\n</table>\n<p class="caption">{escape(text)}</p>'


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _row(text: str, values: Sequence[Any], write: Callable[[Any], str]) -> str:
    """Return a row of the table, nothing where no sample has the number."""
    cells = ["" if value is None or value != value else write(value) for value in values]
    if not any(cells):
        return ""
    return (
        f"<tr><td>{escape(text)}</td>"
        + "".join(f"<td>{escape(cell) or '–'}</td>" for cell in cells)
        + "</tr>"
    )


def _spectra(numbers: Mapping[str, Numbers]) -> str:
    """Return what the rates assume, nothing where there are none."""
    used = {
        entry["rates_hz"]["spectrum"]: None
        for entry in numbers.values()
        if entry["rates_hz"] is not None
    }
    if not used:
        return ""
    text = f"Rates before cuts, for energies, cone and scatter radius as thrown: {'; '.join(used)}."
    return f'\n<p class="caption">{escape(text)}</p>'
