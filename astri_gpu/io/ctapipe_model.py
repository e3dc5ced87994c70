"""ctapipe's HDF5 data model v7.1.0 and what its columns are in our store.

One list of columns per table, in the order of the file. The exporter writes them, the importer
reads them; neither needs ctapipe. Read off the files and sources of ctapipe 0.28 (`DataWriter`,
`HDF5EventSource`, `containers`). Reconstructed showers are in `ctapipe_model_dl2`, observations and
run headers in `ctapipe_model_run`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "DATA_MODEL_VERSION",
    "DL1_IMAGES",
    "DL1_PARAMETERS",
    "DL2_SUBARRAY",
    "DL2_TELESCOPE",
    "EVENT_KEYS",
    "IMAGE_COLUMNS",
    "INSTRUMENT_CAMERA",
    "INSTRUMENT_LAYOUT",
    "INSTRUMENT_OPTICS",
    "MAGIC",
    "OBSERVATION_BLOCK",
    "PARAMETER_COLUMNS",
    "POINTING",
    "READABLE_VERSIONS",
    "SCHEDULING_BLOCK",
    "SHOWER_COLUMNS",
    "SHOWER_DISTRIBUTION",
    "SIMULATION_IMAGES",
    "SIMULATION_IMPACT",
    "SIMULATION_PARAMETERS",
    "SIMULATION_RUN",
    "SIMULATION_SHOWER",
    "TELESCOPE_KEYS",
    "TELESCOPE_TRIGGER",
    "TELESCOPE_TRIGGER_COLUMNS",
    "TRIGGER",
    "TRIGGER_COLUMNS",
    "TRUE_IMAGE_COLUMNS",
    "TRUE_IMPACT_COLUMNS",
    "TRUE_PARAMETER_COLUMNS",
    "VERSION_ATTR",
    "Field",
    "attribute",
    "telescope_table",
]

MAGIC = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""

DATA_MODEL_VERSION = "v7.1.0"
VERSION_ATTR = "CTA PRODUCT DATA MODEL VERSION"
READABLE_VERSIONS = ("v4.0.0", "v5.0.0", "v5.1.0", "v6.0.0", "v7.0.0", "v7.1.0")
"""Versions in which the columns below that a file has mean the same.

Times differ: `TIME_FORMAT` of the column says "ctao_high_res" from v7.0.0 on and "mjd" before.
"""

INSTRUMENT_LAYOUT = "/configuration/instrument/subarray/layout"
INSTRUMENT_OPTICS = "/configuration/instrument/telescope/optics"
INSTRUMENT_CAMERA = "/configuration/instrument/telescope/camera"  # geometry_<i>, readout_<i>
SCHEDULING_BLOCK = "/configuration/observation/scheduling_block"
OBSERVATION_BLOCK = "/configuration/observation/observation_block"
POINTING = "/configuration/telescope/pointing"
SIMULATION_RUN = "/configuration/simulation/run"
SHOWER_DISTRIBUTION = "/simulation/service/shower_distribution"
SIMULATION_SHOWER = "/simulation/event/subarray/shower"
SIMULATION_IMPACT = "/simulation/event/telescope/impact"
SIMULATION_IMAGES = "/simulation/event/telescope/images"
SIMULATION_PARAMETERS = "/simulation/event/telescope/parameters"
TRIGGER = "/dl1/event/subarray/trigger"
TELESCOPE_TRIGGER = "/dl1/event/telescope/trigger"
DL1_IMAGES = "/dl1/event/telescope/images"
DL1_PARAMETERS = "/dl1/event/telescope/parameters"
DL2_SUBARRAY = "/dl2/event/subarray"  # a group for every kind of result, see ctapipe_model_dl2
DL2_TELESCOPE = "/dl2/event/telescope"


def telescope_table(group: str, tel_id: int) -> str:
    """Return the path of a telescope's table in a group, such as ".../images/tel_001"."""
    return f"{group}/tel_{tel_id:03d}"


@dataclass(frozen=True)
class Field:
    """One column of a table of ctapipe.

    `column` is its name in the file and `name` that of the field in ctapipe's container (the
    column without prefix); `dtype` is a NumPy type code; `unit` is an astropy unit ("" = none);
    `ours` is the column of our schema that holds it, or the key of our simulation header; None
    where we do not have it, and then `unknown` is written. The file has `factor` times our value.
    """

    column: str
    dtype: str
    unit: str = ""
    ours: str | None = None
    unknown: Any = float("nan")
    factor: float = 1.0
    prefix: str = ""
    enum: str = ""  # class of ctapipe.containers; the file has its numbers
    time: str = ""  # TIME_FORMAT, on the scale TAI
    mask: bool = False  # True for each telescope of the layout that takes part

    @property
    def name(self) -> str:
        """Return the column without prefix."""
        return self.column.removeprefix(f"{self.prefix}_") if self.prefix else self.column

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the column, without the prefix CTAFIELD_<position>_.

        ctapipe keeps enumerations as pickled classes: these are the bytes of a reference by name
        (protocol 0), as its own writer leaves them.
        """
        attrs: dict[str, Any] = {"NAME": self.name}
        if self.unit:
            attrs |= {"TRANSFORM": "quantity", "UNIT": self.unit}
        if self.enum:
            reference = f"cctapipe.containers\n{self.enum}\np0\n.".encode()
            attrs |= {"TRANSFORM": "enum", "ENUM": np.bytes_(reference)}
        if self.time:
            attrs |= {"TRANSFORM": "time", "TIME_SCALE": "tai", "TIME_FORMAT": self.time}
        if self.mask:
            attrs["TRANSFORM"] = "tel_list_to_mask"
        if self.dtype.startswith("S"):
            attrs |= {"TRANSFORM": "string", "MAXLEN": int(self.dtype[1:])}
        return attrs


def attribute(position: int, key: str) -> str:
    """Return the name of a column's attribute on its table, such as "CTAFIELD_3_UNIT"."""
    return f"CTAFIELD_{position}_{key}"


# ctapipe writes whatever integers its input had (8 to 64 bits); these are those of its empty tables
# and of CTAO's data model, and are the same in every file of ours, so that files merge.
_OBS_ID, _EVENT_ID = Field("obs_id", "u8", ours="obs_id"), Field("event_id", "u8", ours="event_id")
EVENT_KEYS = (_OBS_ID, _EVENT_ID)
TELESCOPE_KEYS = (_OBS_ID, _EVENT_ID, Field("tel_id", "u2", ours="tel_id"))

TRIGGER_COLUMNS = (
    *EVENT_KEYS,
    Field("time", "u4", time="ctao_high_res"),  # (2,): our time_s and time_ns
    Field("tels_with_trigger", "?", mask=True),  # (tel,): our tel_mask
    Field("event_type", "i8", ours="event_type", enum="EventType"),
)
TELESCOPE_TRIGGER_COLUMNS = (
    *TELESCOPE_KEYS,
    Field("time", "u4", time="ctao_high_res"),  # (2,): our event time plus trigger_time_ns
    Field("event_type", "i8", ours="event_type", enum="EventType"),
    Field("n_trigger_pixels", "i8", ours="n_trigger_pixels", unknown=-1),
)
SHOWER_COLUMNS = (
    *EVENT_KEYS,
    Field("true_energy", "f8", "TeV", "true_energy", prefix="true"),
    Field("true_alt", "f8", "deg", "true_alt", prefix="true"),
    Field("true_az", "f8", "deg", "true_az", prefix="true"),
    Field("true_core_x", "f8", "m", "true_core_x", prefix="true"),
    Field("true_core_y", "f8", "m", "true_core_y", prefix="true"),
    Field("true_h_first_int", "f8", "m", "true_h_first_int", prefix="true"),
    Field("true_x_max", "f8", "g.cm**-2", "true_x_max", prefix="true"),
    Field("true_starting_grammage", "f8", "g.cm**-2", "true_starting_grammage", prefix="true"),
    Field("true_shower_primary_id", "i8", "", "true_primary_id", -1, prefix="true"),
)
TRUE_IMPACT_COLUMNS = (
    *TELESCOPE_KEYS,
    Field("true_impact_distance", "f8", "m", "true_impact_distance", prefix="true_impact"),
    Field("true_impact_distance_uncert", "f8", "m", unknown=0.0, prefix="true_impact"),
)
TRUE_IMAGE_COLUMNS = (
    *TELESCOPE_KEYS,
    Field("true_image_sum", "i8", "", "true_image_sum", -1),
    Field("true_image", "i4", "", "true_image", -1),  # (pixel,)
)
IMAGE_COLUMNS = (
    *TELESCOPE_KEYS,
    Field("image", "f4", "", "charge"),  # (pixel,)
    Field("peak_time", "f4", "", "peak_time"),  # (pixel,), ns
    Field("image_mask", "?", "", "mask", False),  # (pixel,)
    Field("is_valid", "?", unknown=True),
)

# Field names with their units, as "name" or "name:unit".
_HILLAS = (
    "intensity skewness kurtosis fov_lon:deg fov_lat:deg r:deg phi:deg length:deg "
    "length_uncertainty:deg width:deg width_uncertainty:deg psi:deg psi_uncertainty:deg "
    "transverse_cog_uncertainty:deg"
)
_TIMING = "intercept deviation slope:deg**-1"  # intercept and deviation in ns
_LEAKAGE = "pixels_width_1 pixels_width_2 intensity_width_1 intensity_width_2"
_CONCENTRATION = "cog core pixel"
_MORPHOLOGY = "n_pixels n_islands n_small_islands n_medium_islands n_large_islands"
_STATISTICS = "max min mean std skewness kurtosis"
_ON_TRUE_IMAGES = (
    ("hillas", _HILLAS),
    ("leakage", _LEAKAGE),
    ("concentration", _CONCENTRATION),
    ("morphology", _MORPHOLOGY),
    ("intensity", _STATISTICS),
)
_ON_IMAGES = (
    ("hillas", _HILLAS),
    ("timing", _TIMING),
    ("leakage", _LEAKAGE),
    ("concentration", _CONCENTRATION),
    ("morphology", _MORPHOLOGY),
    ("intensity", _STATISTICS),
    ("peak_time", _STATISTICS),
)


def _parameters(groups: tuple[tuple[str, str], ...], stored: bool) -> tuple[Field, ...]:
    """Return the columns of image parameters; those on true images (`stored` False) are unknown.

    Ours carry ctapipe's names and units. In ctapipe some of them are 64 bits wide; ours have 32.
    """
    fields = []
    for group, names in groups:
        prefix = group if stored else f"true_{group}"
        for name, _, unit in (entry.partition(":") for entry in names.split()):
            whole = group == "morphology"
            fields.append(
                Field(
                    f"{prefix}_{name}",
                    "i8" if whole else "f4",
                    unit,
                    f"{group}_{name}" if stored else None,
                    -1 if whole else float("nan"),
                    prefix=prefix,
                )
            )
    return tuple(fields)


PARAMETER_COLUMNS = (
    *TELESCOPE_KEYS,
    *_parameters(_ON_IMAGES, stored=True),
    Field("core_psi", "f8", "deg", prefix="core"),
)
TRUE_PARAMETER_COLUMNS = (*TELESCOPE_KEYS, *_parameters(_ON_TRUE_IMAGES, stored=False))
