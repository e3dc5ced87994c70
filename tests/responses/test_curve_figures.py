"""Pictures of performance curves: which there are, and what is in them."""

from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config import compose
from astri_gpu.display import style
from astri_gpu.responses.curve_figures import FIGURES, draw_curves, is_curve_file
from astri_gpu.responses.curve_panels import draw_ratio, draw_sensitivity
from astri_gpu.responses.curve_points import Curves
from astri_gpu.responses.curve_scene import Scene
from astri_gpu.responses.curve_tables import write_curves
from astri_gpu.responses.curves import make_curves
from astri_gpu.responses.references import Reference
from tests.drawn_events import MODEL

DPI = 30


@pytest.fixture(scope="module")
def curves(sample, cuts):
    """Return the curves of two classes."""
    config = compose("irf", ["input=x", "cut_files=y", "output=z", "n_bootstrap=10"])
    other = replace(cuts, event_class="cc02", exposure_h=5.0, gammaness=cuts.gammaness - 0.1)
    return make_curves(sample, [cuts, other], config)


@pytest.fixture(scope="module")
def reference(curves):
    """Return curves that stand for another array."""
    own = tuple(
        replace(curve, labels={**curve.labels, "event_class": "another array"})
        for curve in curves
        if curve.labels["event_class"] == "cc03"
    )
    return Reference("another array", "another.fits", own, "made up")


def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def labels_of(panel):
    return set(panel.get_legend_handles_labels()[1])


def test_every_kind_has_a_picture(tmp_path, curves, reference):
    names = draw_curves(tmp_path, curves, reference, dpi=DPI)
    assert names == [f"{kind}.png" for kind in FIGURES]
    for name in names:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000
    assert all(map(is_curve_file, [*names, *write_curves(tmp_path, curves, reference)]))
    assert not is_curve_file("notes.png")
    assert not is_curve_file("sensitivity.txt")


def test_pointings_have_pictures_of_their_own(tmp_path, curves):
    few = [curve for curve in curves if curve.kind == "effective_area"]
    low = [replace(curve, labels={**curve.labels, "zenith_deg": 40.0}) for curve in few]
    names = draw_curves(tmp_path, Curves((*few, *low), curves.meta), dpi=DPI)
    assert names == [
        "effective_area_zd20_az000.png",
        "curves_zd20_az000.png",
        "effective_area_zd40_az000.png",
        "curves_zd40_az000.png",
    ]
    assert all(map(is_curve_file, names))


def test_sensitivities_of_several_classes_are_those_they_are_best_for(curves, reference):
    scene = Scene(curves, reference)
    shown = [curve.labels for curve, _ in scene.sensitivities()]
    assert [(s["event_class"], s["exposure_h"]) for s in shown] == [("cc03", 50.0), ("cc02", 5.0)]
    panel = axes()
    draw_sensitivity(panel, scene)
    assert labels_of(panel) == {
        "cc03, 50 h",
        "cc02, 5 h",
        "another array, 50 h",
        "ASTRI Mini-Array, 50 h (arXiv:2208.03177, digitised)",
    }
    assert "erg" in panel.get_ylabel()
    assert panel.get_yscale() == "log"


def test_a_single_class_is_shown_for_all_times(curves):
    own = Curves(tuple(c for c in curves if c.labels["event_class"] == "cc03"), curves.meta)
    times = [curve.labels["exposure_h"] for curve, _ in Scene(own, None).sensitivities()]
    assert sorted(times) == [0.5, 5.0, 50.0]


def test_ratio_is_drawn_for_fifty_hours_alone(curves):
    panel = axes()
    draw_ratio(panel, Scene(curves, None))
    drawn = [np.asarray(line.get_ydata(), dtype=float) for line in panel.get_lines()]
    (curve,) = (c for c in curves.of("sensitivity", event_class="cc03", exposure_h=50.0))
    ratio = curve.values["ratio"].value
    assert any(
        len(line) == len(ratio)
        and np.array_equal(line, np.where(np.isfinite(ratio), ratio, np.nan), equal_nan=True)
        for line in drawn
    )


def test_pictures_say_how_the_events_were_simulated(curves):
    from matplotlib import rc_context

    for kind in ("sensitivity", "background_rate"):
        with rc_context(style.STYLE):
            figure = FIGURES[kind](Scene(curves, None), DPI, "zenith 20°")
        assert MODEL in figure.get_supxlabel(), kind
        assert "zenith 20°" in figure.get_suptitle()


def test_curves_without_a_finite_value_say_so(sample, cuts):
    config = compose("irf", ["input=x", "cut_files=y", "output=z", "n_bootstrap=0"])
    closed = replace(cuts, gammaness=np.where(cuts.valid, 1.01, np.nan))
    scene = Scene(make_curves(sample, [closed], config), None)
    for draw in (draw_sensitivity, draw_ratio):
        panel = axes()
        draw(panel, scene)
        assert [text.get_text() for text in panel.texts] == ["no events, or no cuts"]


def test_many_classes_have_different_colours(curves):
    (curve,) = curves.of("sensitivity", event_class="cc03", exposure_h=50.0)
    many = [
        replace(curve, labels={**curve.labels, "event_class": f"cc{number}"})
        for number in range(10, 22)
    ]
    scene = Scene(Curves(tuple(many)), None)
    assert len({tuple(scene.colour(name)) for name in scene.classes}) == 12
