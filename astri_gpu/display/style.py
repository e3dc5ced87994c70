"""Colours, fonts and marks, in one place so that all panels agree."""

from typing import Any

import numpy as np

__all__ = [
    "CAMERA_COLOURS",
    "FONTS",
    "INK",
    "STYLE",
    "camera_colour",
    "charge_map",
    "cross",
    "halo",
    "star",
]

INK = "#1b1e28"
FAINT = "#9aa1b1"
GRID = "#e3e6ec"
CONTOUR = "#52e5e7"  # the cleaned pixels
ELLIPSE = "#ffffff"
RECONSTRUCTED = "#00d27f"
TRUE = "#ff3d7f"

# Okabe and Ito's palette, which people with any colour vision can tell apart.
CAMERA_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5195")

FONTS = {"title": 12.0, "panel": 8.5, "label": 8.0, "tick": 6.5, "note": 7.5}

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONTS["label"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": FONTS["tick"],
    "ytick.labelsize": FONTS["tick"],
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def camera_colour(names: list[str], name: str) -> str:
    """Return the colour of a camera in the panels of the whole array."""
    return CAMERA_COLOURS[names.index(name) % len(CAMERA_COLOURS)]


def charge_map() -> Any:
    """Return the colour map of pixel values: perceptually uniform, grey where there is no value."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    # The darkest part is left out: black cameras would hide the sides of their pixels.
    colours = matplotlib.colormaps["inferno"](np.linspace(0.05, 1, 256))
    return ListedColormap(colours, name="charge").with_extremes(bad="#8a8f9c")


def halo(colour: str = "white", width: float = 2.0) -> list[Any]:
    """Return path effects that make a mark visible on any ground."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground=colour)]


def star() -> dict[str, Any]:
    """Return the properties of the mark of the reconstruction."""
    return {
        "marker": "*",
        "ms": 8,
        "ls": "",
        "color": RECONSTRUCTED,
        "mec": INK,
        "mew": 0.5,
        "zorder": 7,
        "label": "reconstructed",
    }


def cross() -> dict[str, Any]:
    """Return the properties of the mark of the truth."""
    return {
        "marker": (4, 2, 45),  # unlike "x" it is not snapped to whole dots, away from its halo
        "ms": 12,
        "ls": "",
        "color": TRUE,
        "mew": 1.5,
        "zorder": 6,
        "label": "true",
        "path_effects": halo(width=2.6),
    }
