"""Every column of a production store: its dimensions, type, unit and meaning, written down once.

Zarr attributes, FITS headers, documentation and tests read these tables. A table path is the place
of a group inside the store without the camera name: the column ``adc`` of ``dl0/image/ASTRICam``
is found under ``dl0/image``.
"""

from dataclasses import dataclass

from astri_gpu.errors import AstriError

__all__ = ["SCHEMA_VERSION", "TABLES", "Column", "column", "table_key"]

SCHEMA_VERSION = 1
"""Raised whenever a stored array changes its meaning; readers refuse versions they do not know."""


@dataclass(frozen=True)
class Column:
    """One stored array.

    `dims` are the dimension names, the first one counts rows; `dtype` is a NumPy type code of
    fixed byte order; `unit` is a string that astropy.units parses ("" = no unit); `astri` is the
    name of the same quantity in A-SciSoft event lists, where it has one.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    description: str
    astri: str | None = None


Rows = tuple[tuple[str, str, str, str], ...]


def _table(dims: tuple[str, ...], rows: Rows, *others: Column) -> dict[str, Column]:
    columns = [Column(name, dims, dtype, unit, text) for name, dtype, unit, text in rows]
    return {entry.name: entry for entry in (*columns, *others)}


def _parameters() -> dict[str, Column]:
    """Return the columns of dl1/image in the order in which they are stored and exported."""
    f4, i4 = "f4", "i4"
    rows: tuple[tuple[str, str, str, str, str | None], ...] = (
        ("event_index", "i8", "", "Row of the event in dl0/event", None),
        ("tel_id", "u2", "", "Telescope number", None),
        ("hillas_intensity", f4, "electron", "Sum of the cleaned image in p.e.", "SIZE"),
        ("hillas_skewness", f4, "", "Third standardised moment along the major axis", None),
        ("hillas_kurtosis", f4, "", "Fourth standardised moment along the major axis", None),
        ("hillas_fov_lon", f4, "deg", "Longitude of the image centroid", "MEANX"),
        ("hillas_fov_lat", f4, "deg", "Latitude of the image centroid", "MEANY"),
        ("hillas_r", f4, "deg", "Distance of the centroid from the camera centre", None),
        ("hillas_phi", f4, "deg", "Polar angle of the centroid", None),
        ("hillas_length", f4, "deg", "Standard deviation along the major axis", "LENGTH"),
        ("hillas_length_uncertainty", f4, "deg", "Statistical uncertainty of the length", None),
        ("hillas_width", f4, "deg", "Standard deviation along the minor axis", "WIDTH"),
        ("hillas_width_uncertainty", f4, "deg", "Statistical uncertainty of the width", None),
        ("hillas_psi", f4, "deg", "Angle of the major axis, -90 to 90", None),
        ("hillas_psi_uncertainty", f4, "deg", "Statistical uncertainty of psi", None),
        (
            "hillas_transverse_cog_uncertainty",
            f4,
            "deg",
            "Uncertainty of the centroid across the major axis",
            None,
        ),
        ("leakage_pixels_width_1", f4, "", "Share of cleaned pixels in the border row", None),
        ("leakage_pixels_width_2", f4, "", "Share of cleaned pixels in two border rows", None),
        ("leakage_intensity_width_1", f4, "", "Share of intensity in the border row", None),
        ("leakage_intensity_width_2", f4, "", "Share of intensity in two border rows", None),
        ("concentration_cog", f4, "", "Share of intensity within one pixel of the centroid", None),
        ("concentration_core", f4, "", "Share of intensity inside the Hillas ellipse", None),
        ("concentration_pixel", f4, "", "Share of intensity in the brightest pixel", None),
        ("morphology_n_pixels", i4, "", "Pixels that survive cleaning", None),
        ("morphology_n_islands", i4, "", "Connected groups of cleaned pixels", None),
        ("morphology_n_small_islands", i4, "", "Islands of one or two pixels", None),
        ("morphology_n_medium_islands", i4, "", "Islands of 3 to 50 pixels", None),
        ("morphology_n_large_islands", i4, "", "Islands of more than 50 pixels", None),
        ("intensity_max", f4, "electron", "Largest charge of a cleaned pixel in p.e.", None),
        ("intensity_min", f4, "electron", "Smallest charge of a cleaned pixel in p.e.", None),
        ("intensity_mean", f4, "electron", "Mean charge of the cleaned pixels in p.e.", None),
        ("intensity_std", f4, "electron", "Standard deviation of the charges in p.e.", None),
        ("intensity_skewness", f4, "", "Skewness of the charges of the cleaned pixels", None),
        ("intensity_kurtosis", f4, "", "Kurtosis of the charges of the cleaned pixels", None),
        ("timing_slope", f4, "ns / deg", "Time gradient along the major axis", None),
        ("timing_intercept", f4, "ns", "Arrival time at the centroid", None),
        ("timing_deviation", f4, "ns", "Root mean square deviation from the time line", None),
        ("peak_time_max", f4, "ns", "Latest peak time of a cleaned pixel", None),
        ("peak_time_min", f4, "ns", "Earliest peak time of a cleaned pixel", None),
        ("peak_time_mean", f4, "ns", "Mean peak time of the cleaned pixels", None),
        ("peak_time_std", f4, "ns", "Standard deviation of the peak times", None),
        ("peak_time_skewness", f4, "", "Skewness of the peak times of the cleaned pixels", None),
        ("peak_time_kurtosis", f4, "", "Kurtosis of the peak times of the cleaned pixels", None),
        ("astri_conc", f4, "", "Share of the two brightest pixels", "CONC"),
        ("astri_asym", f4, "deg", "Brightest pixel from the centroid, on the axis", "ASYM"),
        ("astri_mdist", f4, "deg", "Distance of brightest pixel and centroid", "MDIST"),
        ("astri_m3long", f4, "deg", "Signed cube root of the third moment", "M3LONG"),
        ("astri_leakage", f4, "", "Share of the charge in border pixels", "LEAKAGE"),
        ("astri_delta", f4, "rad", "Angle of the major axis, -pi/2 to pi/2", "DELTA"),
        ("astri_dist", f4, "deg", "Distance of the centroid from the source", "DIST"),
        ("astri_miss", f4, "deg", "Signed distance of the axis from the source", "MISS"),
        ("astri_alpha", f4, "deg", "Signed angle of axis and source direction", "ALPHA"),
        (
            "astri_cos_delta_alpha",
            f4,
            "",
            "Cosine of the angle between the axis and the source direction",
            "COSDELTAALPHA",
        ),
        ("astri_num_island", i4, "", "Number of islands", "NUMISLAND"),
        ("astri_size_main_island", f4, "electron", "Charge of the main island", "SIZEMISL"),
        ("astri_num_core", i4, "", "Pixels above the picture threshold", "NUMCORE"),
        ("astri_num_boundary", i4, "", "Pixels kept for their neighbours", "NUMBOUNDARY"),
        ("n_saturated_pixels", i4, "", "Pixels whose every gain is saturated", None),
        ("image_flags", "u4", "", "Bits that say what happened to this image (0 = nothing)", None),
    )
    table = {
        name: Column(name, ("image",), dtype, unit, text, astri)
        for name, dtype, unit, text, astri in rows
    }
    pixels = ("image", "pixel")
    for extra in (
        Column("charge", pixels, "f4", "electron", "Calibrated charge in p.e."),
        Column("peak_time", pixels, "f4", "ns", "Time of the maximum from the readout start"),
        Column("mask", pixels, "bool", "", "True = the pixel survived cleaning"),
    ):
        table[extra.name] = extra
    return table


_IMAGE_KEYS: Rows = (
    ("event_index", "i8", "", "Row of the event in dl0/event"),
    ("tel_id", "u2", "", "Telescope number"),
)
_EVENT_KEYS: Rows = (
    ("obs_id", "i8", "", "Observation or run number"),
    ("event_id", "i8", "", "Event number, unique within obs_id; negative for calibration events"),
)
_SAMPLE_KEYS: Rows = (
    ("tel_id", "u2", "", "Telescope number"),
    ("time_s", "i8", "s", "Time of the sample, whole seconds since 1970 (unix, UTC)"),
    ("time_ns", "i4", "ns", "Nanoseconds to add to time_s"),
)
_PER_GAIN = ("calibration", "gain", "pixel")
_PER_PIXEL = ("calibration", "pixel")
_THROWN = ("core_distance_bin", "energy_bin")

TABLES: dict[str, dict[str, Column]] = {
    "instrument/telescope": _table(
        ("tel",),
        (
            ("tel_id", "u2", "", "Telescope number"),
            ("x", "f8", "m", "Position towards North, from the array reference point"),
            ("y", "f8", "m", "Position towards West, from the array reference point"),
            ("z", "f8", "m", "Height above the observation level"),
            ("camera_index", "u2", "", "Entry of the attribute `cameras` of this group"),
        ),
    ),
    "instrument/camera": _table(
        ("pixel",),
        (
            ("pix_x", "f8", "m", "Pixel centre in the derotated camera frame, x"),
            ("pix_y", "f8", "m", "Pixel centre in the derotated camera frame, y"),
            ("pix_z", "f8", "m", "Pixel centre along the optical axis (curved cameras)"),
            ("pix_area", "f8", "m2", "Sensitive area of the pixel"),
            ("module", "i4", "", "Camera module (drawer) of the pixel, -1 = unknown"),
        ),
        Column(
            "neighbours", ("pixel", "neighbour"), "i4", "", "Pixels that share an edge, -1 = none"
        ),
        Column(
            "neighbours_diagonal",
            ("pixel", "neighbour_diagonal"),
            "i4",
            "",
            "Pixels that share an edge or a corner, -1 = none",
        ),
        Column(
            "reference_pulse",
            ("gain", "pulse_sample"),
            "f8",
            "",
            "Shape of a pulse, in steps of the attribute reference_pulse_step_ns",
        ),
    ),
    "dl0/event": _table(
        ("event",),
        (
            *_EVENT_KEYS,
            ("time_s", "i8", "s", "Time of the event, whole seconds since 1970 (unix, UTC)"),
            ("time_ns", "i4", "ns", "Nanoseconds to add to time_s"),
            ("event_type", "u1", "", "CTAO event type: 32 shower, 0 flat field, 2 to 5 pedestal"),
            ("array_alt", "f8", "deg", "Altitude of the array pointing"),
            ("array_az", "f8", "deg", "Azimuth of the array pointing, North over East"),
        ),
        Column("tel_mask", ("event", "tel"), "bool", "", "True = telescope is in the trigger"),
    ),
    "dl0/image": _table(
        ("image",),
        (
            *_IMAGE_KEYS,
            ("calibration_index", "i4", "", "Row of the constants in monitoring/camera"),
            ("pointing_alt", "f8", "deg", "Altitude of the telescope pointing"),
            ("pointing_az", "f8", "deg", "Azimuth of the telescope pointing, North over East"),
            ("trigger_time_ns", "f4", "ns", "Trigger of the telescope after the event time"),
            ("n_trigger_pixels", "i4", "", "Pixels in the trigger, -1 = unknown"),
            ("trigger_type", "u2", "", "Bits of the trigger logics that fired (sim_telarray)"),
        ),
        Column("trigger_pixel", ("image", "pixel"), "bool", "", "True = pixel fired the trigger"),
        Column("adc", ("image", "gain", "pixel"), "u2", "adu", "Counts, one value per gain"),
        Column(
            "waveform",
            ("image", "gain", "pixel", "sample"),
            "u2",
            "adu",
            "Counts in every readout sample",
        ),
    ),
    "monitoring/camera": _table(
        _PER_GAIN,
        (
            ("pedestal", "f4", "adu", "Baseline per sample"),
            ("pedestal_std", "f4", "adu", "Standard deviation of the baseline per sample"),
            ("dc_to_pe", "f4", "electron / adu", "Photo-electrons per count"),
            ("time_shift", "f4", "ns", "Time correction of the pixel"),
            ("pixel_valid", "bool", "", "True = use; False = switched off or bad constants"),
        ),
        Column("tel_id", ("calibration",), "u2", "", "Telescope that the constants belong to"),
    ),
    "monitoring/variance": _table(
        ("interval",),
        (
            ("tel_id", "u2", "", "Telescope number"),
            ("time_s", "i8", "s", "End of the interval, whole seconds since 1970 (unix, UTC)"),
            ("time_ns", "i4", "ns", "Nanoseconds to add to time_s"),
        ),
        Column(
            "variance",
            ("interval", "pixel"),
            "f4",
            "adu2",
            "Variance of the high-gain counts at times that no trigger chose",
        ),
    ),
    "monitoring/pointing": _table(
        ("sample",),
        (
            *_SAMPLE_KEYS,
            ("alt", "f8", "deg", "Altitude of the telescope"),
            ("az", "f8", "deg", "Azimuth of the telescope, North over East"),
        ),
    ),
    "monitoring/live_time": _table(
        ("sample",),
        (
            *_SAMPLE_KEYS,
            ("n_triggers", "i8", "", "Triggers since the start of the run, lost ones too"),
            ("n_events", "i8", "", "Events read out since the start of the run"),
            ("dead_time", "f8", "s", "Time without readout since the start of the run"),
            ("temperature", "f4", "deg_C", "Temperature of the focal plane"),
            ("voltage", "f4", "V", "Mean bias of the sensors"),
            ("status", "u2", "", "Bits: 1 tracking, 2 sensors on, 4 lid open, 8 clock locked"),
        ),
    ),
    "monitoring/good_time": _table(
        ("interval",),
        (
            ("start_s", "i8", "s", "Start, whole seconds since 1970 (unix, UTC)"),
            ("start_ns", "i4", "ns", "Nanoseconds to add to start_s"),
            ("stop_s", "i8", "s", "End, which is not in it, whole seconds since 1970 (unix, UTC)"),
            ("stop_ns", "i4", "ns", "Nanoseconds to add to stop_s"),
        ),
    ),
    "simulation/camera": _table(
        _PER_GAIN,
        (
            ("true_gain", "f4", "adu", "Counts per avalanche"),
            ("true_baseline", "f4", "adu", "Counts without light and noise"),
        ),
        Column("tel_id", ("calibration",), "u2", "", "Telescope that the constants belong to"),
        Column(
            "true_efficiency",
            _PER_PIXEL,
            "f4",
            "",
            "Light accepted, relative to the mean pixel; 0 = dead",
        ),
        Column("true_night_sky", _PER_PIXEL, "f4", "MHz", "Night sky and dark counts, p.e. rate"),
    ),
    "simulation/thrown": _table(
        _THROWN,
        (("histogram", "f8", "", "Number of thrown showers"),),
        Column("energy_edges", ("energy_edge",), "f8", "TeV", "Edges of the energy bins"),
        Column(
            "core_distance_edges", ("core_distance_edge",), "f8", "m", "Edges of the distance bins"
        ),
    ),
    "simulation/event": _table(
        ("event",),
        (
            *_EVENT_KEYS,
            ("shower_id", "i8", "", "Number of the shower, shared by all its uses; -1 = none"),
            ("true_energy", "f8", "TeV", "Energy of the primary particle"),
            ("true_alt", "f8", "deg", "Altitude of the primary's direction"),
            ("true_az", "f8", "deg", "Azimuth of the primary's direction"),
            ("true_core_x", "f8", "m", "Shower core towards North"),
            ("true_core_y", "f8", "m", "Shower core towards West"),
            ("true_h_first_int", "f4", "m", "Height of the first interaction above sea level"),
            ("true_x_max", "f4", "g cm-2", "Depth of the shower maximum"),
            ("true_starting_grammage", "f4", "g cm-2", "Depth at which the particle started"),
            ("true_primary_id", "i4", "", "0 gamma, 1 e-, 2 mu-, 101 p, 402 He (100 A + Z)"),
        ),
    ),
    "simulation/image": _table(
        ("image",),
        (
            *_IMAGE_KEYS,
            ("true_image_sum", "i8", "electron", "True p.e. of the image, -1 = unknown"),
            ("true_impact_distance", "f4", "m", "Distance of telescope and shower axis"),
        ),
        Column(
            "true_image", ("image", "pixel"), "i4", "electron", "True p.e. per pixel, -1 = unknown"
        ),
    ),
    "dl1/image": _parameters(),
    "dl2/event": _table(
        ("event",),
        (
            *_EVENT_KEYS,
            ("stereo_alt", "f8", "deg", "Reconstructed altitude"),
            ("stereo_az", "f8", "deg", "Reconstructed azimuth, North over East"),
            ("stereo_core_x", "f8", "m", "Reconstructed core on the ground towards North"),
            ("stereo_core_y", "f8", "m", "Reconstructed core on the ground towards West"),
            ("stereo_core_tilted_x", "f8", "m", "Reconstructed core in the tilted frame, x"),
            ("stereo_core_tilted_y", "f8", "m", "Reconstructed core in the tilted frame, y"),
            ("stereo_h_max", "f8", "m", "Reconstructed height of the shower maximum"),
            ("stereo_ang_distance_uncert", "f8", "deg", "Uncertainty of the direction"),
            ("stereo_average_intensity", "f8", "electron", "Mean intensity of the used images"),
            ("stereo_n_tels", "i4", "", "Telescopes used in the reconstruction"),
            ("stereo_is_valid", "bool", "", "True = the reconstruction succeeded"),
            ("mean_energy", "f4", "TeV", "Weighted mean of the energies of the images"),
            ("mean_gammaness", "f4", "", "Weighted mean of the gammaness of the images"),
            ("disp_alt", "f8", "deg", "Altitude from the displacements of the images"),
            ("disp_az", "f8", "deg", "Azimuth from the displacements, North over East"),
            ("reco_energy", "f4", "TeV", "Estimated energy"),
            ("reco_energy_uncert", "f4", "TeV", "Expected error of the energy (68 %)"),
            ("gammaness", "f4", "", "Score of the event, 0 hadron to 1 gamma"),
            ("reco_alt", "f8", "deg", "Altitude, geometry and displacements merged"),
            ("reco_az", "f8", "deg", "Azimuth, geometry and displacements merged"),
            ("reco_fov_lon", "f4", "deg", "Longitude in the telescope frame of the array pointing"),
            ("reco_fov_lat", "f4", "deg", "Latitude in the telescope frame of the array pointing"),
            ("reco_direction_uncert", "f4", "deg", "Expected error of the direction (68 %)"),
            ("reco_n_tels", "i4", "", "Images that took part"),
            ("event_quality", "i4", "", "1 best to 4 worst quarter by expected error; 0 = none"),
            ("reco_is_valid", "bool", "", "True = energy, gammaness and direction are there"),
        ),
    ),
    "dl2/image": _table(
        ("image",),
        (
            *_IMAGE_KEYS,
            ("stereo_impact_distance", "f4", "m", "Distance of telescope and reconstructed axis"),
            ("tel_energy_uncert", "f4", "TeV", "Expected error of tel_energy (68 %)"),
            ("tel_disp_sign", "f4", "", "Probability that the source lies along +psi"),
            ("tel_disp_uncert", "f4", "deg", "Expected error of the displacement"),
            ("tel_is_valid", "bool", "", "True = passed the filter and has predictions"),
        ),
        Column("tel_energy", ("image",), "f4", "TeV", "Energy from this image", "EST_EN"),
        Column("tel_gammaness", ("image",), "f4", "", "Score of this image", "GAMMANESS"),
        Column("tel_disp", ("image",), "f4", "deg", "Centroid to source, estimated", "DISP"),
        Column(
            "tel_disp_fov_lon", ("image",), "f4", "deg", "Source longitude from this image", "XDISP"
        ),
        Column(
            "tel_disp_fov_lat", ("image",), "f4", "deg", "Source latitude from this image", "YDISP"
        ),
    ),
}


def table_key(table_path: str) -> str:
    """Return the table of the schema that a group path belongs to.

    "dl0/image/ASTRICam" and "dl0/image" both give "dl0/image".

    Raises
    ------
    AstriError
        When no table lies on this path.
    """
    path = table_path.strip("/")
    for key in (path, path.rpartition("/")[0]):
        if key in TABLES:
            return key
    raise AstriError(f"The schema has no table '{table_path}'; it has {', '.join(sorted(TABLES))}.")


def column(table_path: str, name: str) -> Column:
    """Return the description of one column, given its group (camera name or not) and its name.

    Raises
    ------
    AstriError
        When the schema has no such table or column.
    """
    key = table_key(table_path)
    try:
        return TABLES[key][name]
    except KeyError:
        raise AstriError(
            f"The table '{key}' has no column '{name}'; it has {', '.join(TABLES[key])}."
        ) from None
