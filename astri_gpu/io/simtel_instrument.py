"""Telescopes, cameras and run headers of a sim_telarray file, in our own terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument import (
    ArrayLayout,
    CameraDescription,
    CameraGeometry,
    Optics,
    Readout,
    rotate,
)
from astri_gpu.instrument.camera import PixelShape
from astri_gpu.io.simtel_truth import clip_altitude

__all__ = [
    "ThrownShowers",
    "array_layout",
    "has_true_images",
    "particle_kind",
    "saturation_levels",
    "simulation_attrs",
    "thrown_showers",
    "with_samples",
]

# Names for files without metadata, by number of pixels and focal length in m: the list of ctapipe.
KNOWN_TELESCOPES: dict[tuple[int, float], tuple[str, str, int]] = {
    (2368, 2.15): ("ASTRI", "ASTRICam", 2),
    (2048, 2.15): ("ASTRI", "CHEC", 2),
    (2048, 2.28): ("GCT", "CHEC", 2),
    (1296, 5.60): ("1M", "DigiCam", 1),
    (1764, 16.0): ("MST", "FlashCam", 1),
    (1855, 16.0): ("MST", "NectarCam", 1),
    (1855, 28.0): ("LST", "LSTCam", 1),
    (11328, 5.59): ("SCT", "SCTCam", 1),
}
# sim_telarray: 0 circle, 1 hexagon with flat top and bottom, 2 square, 3 hexagon with flat sides.
PIXEL_SHAPES: dict[int, PixelShape] = {0: "circle", 1: "hexagon", 2: "square", 3: "hexagon"}
DUAL_MIRROR = 2

KINDS = {0: "gamma", 1: "electron", -1: "electron", 2: "muon", -2: "muon", 3: "muon"}
NUCLEI = {101: "proton", 402: "helium"}


# Entries of an mc_run_header that keep their name and value.
HEADER_FIELDS = (
    "detector_prog_start",
    "detector_prog_id",
    "spectral_index",
    "shower_prog_start",
    "shower_prog_id",
    "n_showers",
    "diffuse",
    "core_pos_mode",
    "atmosphere",
    "corsika_iact_options",
    "corsika_low_E_model",
    "corsika_high_E_model",
    "corsika_bunchsize",
    "corsika_wlen_min",
    "corsika_wlen_max",
    "corsika_low_E_detail",
    "corsika_high_E_detail",
)


def array_layout(
    file: Any, path: Path, allowed_telescopes: Sequence[int] = ()
) -> tuple[ArrayLayout, dict[int, int]]:
    """Return the array of a file, and the place of each telescope in its per-telescope arrays.

    Telescopes whose cameras have one name, equal pixels, readout and optics share a camera; a
    second variant of a name gets the suffix "_2". Positions are in the ground frame (x North,
    y West, z up, m), pixels are derotated by the angle `cam_rot` of the file.

    Parameters
    ----------
    file
        An `eventio.SimTelFile`.
    path
        Its name, for messages.
    allowed_telescopes
        Telescope numbers to keep, () = all.

    Raises
    ------
    UsageError
        When an allowed telescope is not in the file.
    """
    header = file.header
    all_ids = [int(number) for number in header["tel_id"]]
    missing = sorted(set(allowed_telescopes) - set(all_ids))
    if missing:
        raise UsageError(
            f"allowed_telescopes asks for {missing}, but {path} has the telescopes {all_ids}."
        )
    tel_ids = [
        number for number in all_ids if not allowed_telescopes or number in allowed_telescopes
    ]
    rows = {number: all_ids.index(number) for number in tel_ids}

    levels = saturation_levels(file.history)
    variants: dict[tuple[Any, ...], int] = {}
    cameras: list[CameraDescription] = []
    camera_index = []
    for number in tel_ids:
        description = file.telescope_descriptions[number]
        optics_name, camera_name, n_mirrors = _names(
            description["camera_settings"], file.telescope_meta.get(number, {})
        )
        # The history numbers telescopes from 1 in the order of the header; 0 is the default.
        saturation = levels.get(rows[number] + 1, levels.get(0))
        key = (camera_name, optics_name, n_mirrors, saturation, *_signature(description))
        if key not in variants:
            n_same = sum(other[0] == camera_name for other in variants)
            group = camera_name if not n_same else f"{camera_name}_{n_same + 1}"
            variants[key] = len(cameras)
            cameras.append(_camera(description, group, optics_name, n_mirrors, saturation))
        camera_index.append(variants[key])

    position = np.asarray(header["tel_pos"], dtype=np.float64)[[rows[number] for number in tel_ids]]
    meta = file.global_meta or {}
    known_place = b"*LATITUDE" in meta and b"*LONGITUDE" in meta
    layout = ArrayLayout(
        name=meta.get(b"ARRAY_CONFIG_NAME", b"MonteCarloArray").decode(errors="replace"),
        tel_id=np.array(tel_ids, dtype=np.uint16),
        x=position[:, 0],
        y=position[:, 1],
        z=position[:, 2],
        camera_index=np.array(camera_index, dtype=np.int32),
        cameras=tuple(cameras),
        latitude_deg=float(meta[b"*LATITUDE"]) if known_place else float("nan"),
        longitude_deg=float(meta[b"*LONGITUDE"]) if known_place else float("nan"),
        altitude_m=float(file.mc_run_headers[-1]["obsheight"])
        if file.mc_run_headers
        else float(meta.get(b"ALTITUDE", "nan")),
        note="from sim_telarray" + ("" if known_place else "; the file does not say where it is"),
    )
    return layout, rows


def _names(settings: Mapping[str, Any], meta: Mapping[bytes, bytes]) -> tuple[str, str, int]:
    """Return (optics name, camera name, number of mirrors)."""
    n_pixels = int(settings["n_pixels"])
    mirror_area = float(settings["mirror_area"])
    key = (n_pixels, round(float(settings["focal_length"]), 2))
    optics, camera, n_mirrors = KNOWN_TELESCOPES.get(
        key,
        (
            f"UNKNOWN-{mirror_area:.0f}M2",
            f"camera_{n_pixels}",
            2 if int(settings["n_mirrors"]) == DUAL_MIRROR else 1,
        ),
    )
    # Half-filled metadata carry made-up names ("LST" for LSTCam): like ctapipe, believe them only
    # when all three are there, or when nothing else is known.
    wanted = (b"OPTICS_CONFIG_NAME", b"CAMERA_CONFIG_NAME", b"MIRROR_CLASS")
    if all(name in meta for name in wanted) or key not in KNOWN_TELESCOPES:
        optics = meta.get(wanted[0], optics.encode()).decode(errors="replace").strip()
        # The name becomes a folder of the store.
        camera = meta.get(wanted[1], camera.encode()).decode(errors="replace").strip()
        camera = camera.replace("/", "-")
        if wanted[2] in meta:
            n_mirrors = 2 if int(meta[wanted[2]]) == DUAL_MIRROR else 1
    return optics, camera, n_mirrors


def _signature(description: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what two telescopes must have in common to share a camera."""
    settings, pixels = description["camera_settings"], description["pixel_settings"]
    arrays = (
        *(settings[name] for name in ("pixel_x", "pixel_y", "pixel_z", "pixel_area")),
        settings["pixel_shape"],
        description["camera_organization"]["drawer"],
        pixels["ref_shape"],
    )
    scalars = (
        *(float(settings[name]) for name in ("cam_rot", "focal_length", "mirror_area")),
        _effective_focal_length(settings),
        int(description["camera_organization"]["n_gains"]),
        *(float(pixels[name]) for name in ("sum_bins", "time_slice", "ref_step")),
    )
    return (*scalars, *(np.ascontiguousarray(values).tobytes() for values in arrays))


def _effective_focal_length(settings: Mapping[str, Any]) -> float | None:
    value = float(settings.get("effective_focal_length", np.nan))
    return value if np.isfinite(value) and value > 0 else None


def _camera(
    description: Mapping[str, Any],
    group: str,
    optics_name: str,
    n_mirrors: int,
    saturation: float | None,
) -> CameraDescription:
    settings, pixels = description["camera_settings"], description["pixel_settings"]
    pix_x, pix_y = rotate(settings["pixel_x"], settings["pixel_y"], -float(settings["cam_rot"]))
    # An unknown shape is taken for a hexagon, as ctapipe does.
    shape = PIXEL_SHAPES.get(int(settings["pixel_shape"][0]), "hexagon")
    return CameraDescription(
        geometry=CameraGeometry.from_pixels(
            group,
            pix_x,
            pix_y,
            settings["pixel_area"],
            shape,
            pix_z=settings["pixel_z"],
            module=description["camera_organization"]["drawer"],
        ),
        readout=Readout(
            n_gains=int(description["camera_organization"]["n_gains"]),
            n_samples=int(pixels["sum_bins"]),
            sampling_rate_ghz=1.0 / float(pixels["time_slice"]),
            reference_pulse=np.asarray(pixels["ref_shape"], dtype=np.float64),
            reference_pulse_step_ns=float(pixels["ref_step"]),
            saturation_adc=saturation,
        ),
        optics=Optics(
            name=optics_name,
            focal_length_m=float(settings["focal_length"]),
            effective_focal_length_m=_effective_focal_length(settings),
            mirror_area_m2=float(settings["mirror_area"]),
            n_mirrors=n_mirrors,
        ),
    )


def with_samples(layout: ArrayLayout, n_samples: Mapping[str, int]) -> ArrayLayout:
    """Return the layout with the number of samples that the images of each camera really have."""
    cameras = []
    for camera in layout.cameras:
        readout = camera.readout
        found = n_samples.get(camera.name, readout.n_samples)
        if found != readout.n_samples:
            # Sums over samples do not saturate at the level of one sample.
            readout = replace(readout, n_samples=found, saturation_adc=None)
        cameras.append(replace(camera, readout=readout))
    return replace(layout, cameras=tuple(cameras))


def saturation_levels(history: Sequence[tuple[Any, bytes]]) -> dict[int, float]:
    """Return the largest value of a sample, by number of the telescope (0 = the default).

    The history lists the configuration (``FADC_MAX_SIGNAL``), first of all telescopes, then of one
    after the other; the last value of a part is the one that was used.
    """
    levels: dict[int, float] = {}
    telescope = 0
    for _, line in history:
        text = line.decode("utf-8", errors="replace").strip()
        if text.startswith("# Telescope-specific configuration follows"):
            telescope += 1
        words = text.replace("=", " ").split()
        if len(words) > 1 and words[0].upper() == "FADC_MAX_SIGNAL" and words[1].isdigit():
            levels[telescope] = float(words[1])
    return levels


def has_true_images(history: Sequence[tuple[Any, bytes]]) -> bool | None:
    """Return whether sim_telarray stored photo-electrons per pixel, None without a history.

    The run history holds the configuration: ``save_photons`` with bit 2, or a positive
    ``store_photoelectrons``, globally or for a telescope. ``merge_simtel`` drops them.
    """
    if not history:
        return None
    lines = [line.decode("utf-8", errors="replace").strip() for _, line in history]
    if "merge_simtel" in lines[0]:
        return False
    for line in lines:
        words = line.lower().split()
        if len(words) < 2 or not words[1].lstrip("-").isdigit():
            continue
        if words[0] == "save_photons" and int(words[1]) & 0b10:
            return True
        if words[0] == "store_photoelectrons" and int(words[1]) > 0:
            return True
    return False


def _run_header(header: Mapping[str, Any], run: int) -> dict[str, Any]:
    """Return an mc_run_header by ctapipe's names (SimulationConfigContainer), angles in deg."""

    def degrees(value: Any) -> float:
        return float(np.rad2deg(float(value)))

    return {
        "run_number": run,
        "corsika_version": header["shower_prog_vers"],
        "simtel_version": header["detector_prog_vers"],
        "energy_range_min": float(header["E_range"][0]),
        "energy_range_max": float(header["E_range"][1]),
        "prod_site_B_total": header["B_total"],
        "prod_site_B_declination": degrees(header["B_declination"]),
        "prod_site_B_inclination": degrees(header["B_inclination"]),
        "prod_site_alt": header["obsheight"],
        "shower_reuse": header["n_use"],
        "max_alt": degrees(clip_altitude(header["alt_range"][1])),
        "min_alt": degrees(clip_altitude(header["alt_range"][0])),
        "max_az": degrees(header["az_range"][1]),
        "min_az": degrees(header["az_range"][0]),
        "max_viewcone_radius": float(header["viewcone"][1]),
        "min_viewcone_radius": float(header["viewcone"][0]),
        "max_scatter_range": float(header["core_range"][1]),
        "min_scatter_range": float(header["core_range"][0]),
        **{name: header.get(name) for name in HEADER_FIELDS},
    }


def simulation_attrs(headers: Sequence[Mapping[str, Any]], run: int) -> dict[str, Any]:
    """Return the attributes of the group `simulation`: energies TeV, angles deg, lengths m.

    Merged files have several run headers: the last one is given by name as ctapipe does, except
    `n_showers`, which is the sum; all of them are in the list `mc_run_headers`.
    """
    if not headers:
        return {}
    flat = [_run_header(header, run) for header in headers]
    n_showers = sum(int(header["n_showers"]) for header in headers)
    return {**flat[-1], "n_showers": n_showers, "mc_run_headers": flat}


def particle_kind(primary_ids: set[int]) -> str:
    """Return the kind of a store from the primaries in it (none = calibration events only)."""
    kinds = {KINDS.get(number, NUCLEI.get(number, f"primary_{number}")) for number in primary_ids}
    if not kinds:
        return "calibration"
    return kinds.pop() if len(kinds) == 1 else "mixed"


@dataclass(frozen=True)
class ThrownShowers:
    """Histogram of all simulated showers (core_distance_bin, energy_bin), edges in m and TeV."""

    histogram: NDArray[np.float64]
    core_distance_edges: NDArray[np.float64]
    energy_edges: NDArray[np.float64]
    n_entries: int


def thrown_showers(histograms: Sequence[Mapping[str, Any]] | None) -> ThrownShowers | None:
    """Return sim_telarray's histogram 6 (core distance, log10 energy), None where it is missing.

    Raises
    ------
    AstriError
        When its data do not have the size that its header tells.
    """
    found = next((entry for entry in histograms or () if entry["id"] == 6), None)
    if found is None:
        return None
    n_x, n_y = int(found["n_bins_x"]), int(found["n_bins_y"])
    data = np.asarray(found["data"], dtype=np.float64)
    if data.size != n_x * n_y:
        raise AstriError(
            f"The histogram of thrown showers has {data.size} bins, not {n_x} x {n_y}."
        )
    return ThrownShowers(
        histogram=data.reshape(n_y, n_x).T.copy(),  # the file counts x, the distance, fastest
        core_distance_edges=np.linspace(found["lower_x"], found["upper_x"], n_x + 1),
        energy_edges=10 ** np.linspace(found["lower_y"], found["upper_y"], n_y + 1),
        n_entries=int(found["entries"]),
    )
