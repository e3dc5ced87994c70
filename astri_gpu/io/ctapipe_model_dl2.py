"""ctapipe's tables of reconstructed showers and what their columns are in our store.

One table per kind of result and algorithm, whose columns begin with the algorithm's name. Read off
the files of ctapipe 0.28 (`ctapipe-process`, `ctapipe-apply-models`) and its containers.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from astri_gpu.io.ctapipe_model import (
    DL2_SUBARRAY,
    DL2_TELESCOPE,
    EVENT_KEYS,
    TELESCOPE_KEYS,
    Field,
)

__all__ = [
    "ALGORITHM",
    "CLASSIFIER",
    "DISP",
    "DL2_GEOMETRY",
    "DL2_IMPACT",
    "ENERGY",
    "GEOMETRY_COLUMNS",
    "IMAGE_MEAN",
    "IMPACT_COLUMNS",
    "MERGED",
    "OF_EVENTS",
    "OF_TELESCOPES",
    "PARTICLE_GROUPS",
    "ResultTable",
    "geometry_columns",
    "impact_columns",
]

DL2_GEOMETRY = f"{DL2_SUBARRAY}/geometry"  # one table per algorithm
DL2_IMPACT = f"{DL2_TELESCOPE}/impact"  # one group per algorithm, in it one table per telescope

ALGORITHM = "HillasReconstructor"
"""Under this name ctapipe's default quality criteria look for the stereo geometry."""
ENERGY, CLASSIFIER = "RandomForestRegressor", "RandomForestClassifier"
"""Under these names its tools look for energy and gammaness unless they are told otherwise."""
DISP = "disp"
"""ctapipe's own name of directions from displacements."""
MERGED = "AstriReconstructor"
"""Direction from geometry and displacements together, our own."""
IMAGE_MEAN = "ImageMean"
"""Weighted means of the predictions of the images, before the forests of events."""

PARTICLE_GROUPS = ("classification", "particle_type")
"""The group of the scores. ctapipe-process 0.28 writes the first, which every version reads;
ctapipe-apply-models and versions from 0.29 on write the second."""

_VALUES = ("alt", "az", "energy", "prediction")


class ResultTable(NamedTuple):
    """One kind of result of one algorithm.

    `key` is the column of our schema without which there is no such table. Where `columns` has a
    field is_valid that is not ours, it is True where all of `values` are finite.
    """

    kind: str  # name of the group
    algorithm: str
    columns: tuple[Field, ...]
    key: str

    @property
    def path(self) -> str:
        """Return the place of a table of events."""
        return f"{DL2_SUBARRAY}/{self.kind}/{self.algorithm}"

    @property
    def group(self) -> str:
        """Return the group of the tables of single telescopes."""
        return f"{DL2_TELESCOPE}/{self.kind}/{self.algorithm}"

    @property
    def values(self) -> tuple[str, ...]:
        """Return the columns of our schema that make a row valid."""
        return tuple(f.ours for f in self.columns if f.ours is not None and f.name in _VALUES)

    def renamed(self, kind: str, algorithm: str) -> "ResultTable":
        """Return the same table of another algorithm, or in another group."""

        def name(of: str) -> str:
            return of.replace(self.algorithm, algorithm, 1)

        columns = tuple(
            replace(field, column=name(field.column), prefix=name(field.prefix))
            if field.prefix
            else field
            for field in self.columns
        )
        return ResultTable(kind, algorithm, columns, self.key)


def _geometry(prefix: str, ours: dict[str, str]) -> tuple[Field, ...]:
    """Return ctapipe's columns of a geometry, all but `telescopes`."""

    def field(name: str, unit: str = "", dtype: str = "f8", **other: Any) -> Field:
        return Field(f"{prefix}_{name}", dtype, unit, ours.get(name), prefix=prefix, **other)

    return (
        field("alt", "deg"),
        field("alt_uncert", "deg"),
        field("az", "deg"),
        field("az_uncert", "deg"),
        field("ang_distance_uncert", "deg"),
        field("core_x", "m"),
        field("core_y", "m"),
        field("core_uncert_x", "m"),
        field("core_uncert_y", "m"),
        field("core_tilted_x", "m"),
        field("core_tilted_y", "m"),
        field("core_tilted_uncert_x", "m"),
        field("core_tilted_uncert_y", "m"),
        field("h_max", "m"),
        field("h_max_uncert", "m"),
        field("is_valid", dtype="?", unknown=False),
        field("average_intensity"),
        field("goodness_of_fit"),
    )


def _estimate(
    prefix: str, values: Mapping[str, tuple[str, str | None]], is_valid: str | None = None
) -> tuple[Field, ...]:
    """Return ctapipe's columns of an energy or a score, all but `telescopes`.

    `values` gives unit and our name of each; `is_valid` is the name of ours.
    """
    return (
        *(
            Field(f"{prefix}_{name}", "f8", unit, ours, prefix=prefix)
            for name, (unit, ours) in values.items()
        ),
        Field(f"{prefix}_is_valid", "?", "", is_valid, False, prefix=prefix),
        Field(f"{prefix}_goodness_of_fit", "f8", prefix=prefix),
    )


def _telescopes(algorithm: str) -> Field:
    """Return the column of the telescopes that took part, (tel,)."""
    return Field(f"{algorithm}_telescopes", "?", prefix=algorithm, mask=True)


def geometry_columns(algorithm: str = ALGORITHM) -> tuple[Field, ...]:
    """Return the columns of the stereo geometry as an algorithm of ctapipe would write it.

    HillasReconstructor gives the spread of its planes as uncertainty of altitude and azimuth.
    """
    same = ("alt", "az", "core_x", "core_y", "core_tilted_x", "core_tilted_y", "h_max", "is_valid")
    ours = {name: f"stereo_{name}" for name in (*same, "average_intensity")}
    ours |= dict.fromkeys(("alt_uncert", "az_uncert"), "stereo_ang_distance_uncert")
    return (*EVENT_KEYS, *_geometry(algorithm, ours), _telescopes(algorithm))


def impact_columns(algorithm: str = ALGORITHM) -> tuple[Field, ...]:
    """Return the columns of the reconstructed impact distance, one table per telescope."""
    prefix = f"{algorithm}_tel_impact"
    return (
        *TELESCOPE_KEYS,
        Field(f"{prefix}_distance", "f8", "m", "stereo_impact_distance", prefix=prefix),
        Field(f"{prefix}_distance_uncert", "f8", "m", prefix=prefix),
    )


def _direction(algorithm: str, ours: dict[str, str]) -> ResultTable:
    columns = (*EVENT_KEYS, *_geometry(algorithm, ours), _telescopes(algorithm))
    return ResultTable("geometry", algorithm, columns, ours["alt"])


def _energy(algorithm: str, energy: str, uncertainty: str | None) -> ResultTable:
    columns = _estimate(
        algorithm, {"energy": ("TeV", energy), "energy_uncert": ("TeV", uncertainty)}
    )
    return ResultTable("energy", algorithm, (*EVENT_KEYS, *columns, _telescopes(algorithm)), energy)


def _score(algorithm: str, score: str) -> ResultTable:
    columns = (*EVENT_KEYS, *_estimate(algorithm, {"prediction": ("", score)}))
    return ResultTable(PARTICLE_GROUPS[0], algorithm, (*columns, _telescopes(algorithm)), score)


GEOMETRY_COLUMNS = geometry_columns()
IMPACT_COLUMNS = impact_columns()
OF_EVENTS = (
    ResultTable("geometry", ALGORITHM, GEOMETRY_COLUMNS, "stereo_is_valid"),
    _direction(
        MERGED,
        {
            "alt": "reco_alt",
            "az": "reco_az",
            "ang_distance_uncert": "reco_direction_uncert",
            # ctapipe has no column of event types; this one lets its quality criteria choose them.
            "goodness_of_fit": "event_quality",
        },
    ),
    _direction(DISP, {"alt": "disp_alt", "az": "disp_az"}),
    _energy(ENERGY, "reco_energy", "reco_energy_uncert"),
    _score(CLASSIFIER, "gammaness"),
    _energy(IMAGE_MEAN, "mean_energy", None),
    _score(IMAGE_MEAN, "mean_gammaness"),
)
"""Tables with one row per event, the stereo geometry first."""


def _of_telescopes() -> tuple[ResultTable, ...]:
    energy = {"energy": ("TeV", "tel_energy"), "energy_uncert": ("TeV", "tel_energy_uncert")}
    disp = f"{DISP}_tel"
    place = {"ang_distance_uncert": "tel_disp_uncert", "is_valid": "tel_is_valid"}
    displacement = (
        Field(f"{disp}_parameter", "f8", "deg", prefix=disp),  # our tel_disp with the sign
        Field(f"{disp}_sign_score", "f8", prefix=disp),  # 0 = either side, 1 = certain
    )
    parts: tuple[tuple[str, str, tuple[Field, ...], str], ...] = (
        ("energy", ENERGY, _estimate(f"{ENERGY}_tel", energy, "tel_is_valid"), "tel_energy"),
        (
            PARTICLE_GROUPS[0],
            CLASSIFIER,
            _estimate(f"{CLASSIFIER}_tel", {"prediction": ("", "tel_gammaness")}, "tel_is_valid"),
            "tel_gammaness",
        ),
        ("disp", DISP, displacement, "tel_disp"),
        ("geometry", DISP, _geometry(disp, place), "tel_disp_fov_lon"),
    )
    return (
        ResultTable("impact", ALGORITHM, IMPACT_COLUMNS, "stereo_impact_distance"),
        *(
            ResultTable(kind, algorithm, (*TELESCOPE_KEYS, *columns), key)
            for kind, algorithm, columns, key in parts
        ),
    )


OF_TELESCOPES = _of_telescopes()
"""Tables with one row per image, a group of them for each kind and algorithm."""
