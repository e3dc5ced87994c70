"""Which telescopes are simulated: the built-in arrays, and layouts from YAML files."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from astri_gpu.config_simulation import (
    ArrayConfig,
    AtmosphereConfig,
    CameraConfig,
    OpticsConfig,
)
from astri_gpu.errors import UsageError
from astri_gpu.instrument import ArrayLayout, CameraDescription
from astri_gpu.instrument.astri import astri_camera, mini_array
from astri_gpu.options import did_you_mean

__all__ = ["BUILT_IN", "ArrayOptions", "array_of", "simulated_camera", "telescopes_at"]

BUILT_IN = ("mini_array", "single")
KEYS = ("id", "x_north_m", "y_west_m", "z_m")
MAX_TELESCOPES = 256  # the random numbers of an image have 8 bits for its telescope
MAX_TEL_ID = 65_535
MIN_DISTANCE_M = 1.0
MAX_COORDINATE_M = 5000.0  # the light tables end at 2800 m from the shower axis


class ArrayOptions(Protocol):
    """Options that an array follows from; stages that simulate have them."""

    array: ArrayConfig
    atmosphere: AtmosphereConfig
    optics: OpticsConfig
    camera: CameraConfig


Place = tuple[int, float, float, float]


def array_of(config: ArrayOptions) -> ArrayLayout:
    """Return the array that a configuration asks for, with ASTRI cameras.

    Raises
    ------
    UsageError
        When the layout is neither built in nor a usable file.
    """
    name = config.array.layout
    if name == "mini_array":
        array = mini_array()
        return replace(
            array,
            cameras=(simulated_camera(config),),
            altitude_m=config.atmosphere.observation_level_m,
        )
    if name == "single":
        array = mini_array()
        return replace(
            telescopes_at([(1, 0.0, 0.0, 0.0)], config, "single telescope"),
            latitude_deg=array.latitude_deg,
            longitude_deg=array.longitude_deg,
            note="one ASTRI telescope at the array reference point",
        )
    return telescopes_at(_read(name), config, Path(name).stem, where=f"the layout file {name}")


def simulated_camera(config: ArrayOptions) -> CameraDescription:
    """Return the ASTRI camera with what the simulation fixes: saturation, mirror, focal length.

    The model images directions by f x angle exactly, so that its effective focal length is known.
    """
    camera = astri_camera()
    return replace(
        camera,
        readout=replace(camera.readout, saturation_adc=float(config.camera.adc_max)),
        optics=replace(
            camera.optics,
            effective_focal_length_m=camera.optics.focal_length_m,
            mirror_area_m2=config.optics.mirror_area_m2,
        ),
    )


def telescopes_at(
    places: list[Place], config: ArrayOptions, name: str, *, where: str = "the array"
) -> ArrayLayout:
    """Return an array of ASTRI telescopes at (number, North, West, up in m).

    Raises
    ------
    UsageError
        For no telescopes or too many, numbers that repeat or cannot be stored, and telescopes on
        one spot or far away; `where` tells whose telescopes they are.
    """
    _check(places, where)
    order = sorted(places)
    tel_id, x, y, z = (np.array(column) for column in zip(*order, strict=True))
    return ArrayLayout(
        name=name,
        tel_id=tel_id.astype(np.uint16),
        x=x.astype(np.float64),
        y=y.astype(np.float64),
        z=z.astype(np.float64),
        camera_index=np.zeros(len(order), dtype=np.int32),
        cameras=(simulated_camera(config),),
        latitude_deg=math.nan,
        longitude_deg=math.nan,
        altitude_m=config.atmosphere.observation_level_m,
        note=f"from {where}; it does not say where on Earth it is",
    )


def _check(places: list[Place], where: str) -> None:
    if not places:
        raise UsageError(f"There is no telescope in {where}: give at least one.")
    if len(places) > MAX_TELESCOPES:
        raise UsageError(
            f"There are {len(places)} telescopes in {where}: the simulation takes at most "
            f"{MAX_TELESCOPES}."
        )
    numbers = [place[0] for place in places]
    for number in numbers:
        if not 0 < number <= MAX_TEL_ID:
            raise UsageError(
                f"A telescope in {where} has the number {number}: numbers go from 1 to "
                f"{MAX_TEL_ID}."
            )
        if numbers.count(number) > 1:
            raise UsageError(
                f"{numbers.count(number)} telescopes in {where} have the number {number}: give "
                "each its own."
            )
    for number, *position in places:
        if not all(abs(value) <= MAX_COORDINATE_M for value in position):
            raise UsageError(
                f"Telescope {number} in {where} stands at {_text(position)}: coordinates reach "
                f"from -{MAX_COORDINATE_M:.0f} to {MAX_COORDINATE_M:.0f} m."
            )
    for row, (number, *position) in enumerate(places):
        for other, *its_position in places[:row]:
            if math.dist(position, its_position) < MIN_DISTANCE_M:
                raise UsageError(
                    f"The telescopes {other} and {number} in {where} stand on one spot, "
                    f"{_text(position)}: put them at least {MIN_DISTANCE_M:.0f} m apart."
                )


def _text(position: list[float]) -> str:
    north, west, up = position
    return f"{north:g} m North, {west:g} m West, {up:g} m up"


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())[:80]


def _read(name: str) -> list[Place]:
    """Return the telescopes of a YAML file."""
    import yaml

    path = Path(name)
    if not path.is_file():
        hint = did_you_mean(name, BUILT_IN)
        raise UsageError(
            f"array.layout is '{name}', which is no file and not built in ({', '.join(BUILT_IN)})"
            f"{hint}"
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # ValueError: bytes that are no text, and dates and numbers that YAML only seems to hold.
        reason = " ".join(str(error).split())
        raise UsageError(f"The layout file {path} cannot be read as YAML ({reason}).") from error
    example = "telescopes: [{id: 1, x_north_m: 0, y_west_m: 0, z_m: 0}]"
    entries = tree.get("telescopes") if isinstance(tree, Mapping) else None
    if not isinstance(entries, list):
        raise UsageError(f"The layout file {path} has no list 'telescopes': write {example}.")
    return [_place(entry, row, path, example) for row, entry in enumerate(entries, start=1)]


def _place(entry: Any, row: int, path: Path, example: str) -> Place:
    """Return one telescope of a file."""
    if not isinstance(entry, Mapping):
        raise UsageError(
            f"Telescope {row} in the layout file {path} is '{_one_line(entry)}': write {example}."
        )
    missing = [key for key in KEYS if key not in entry]
    unknown = [_one_line(key) for key in entry if key not in KEYS]
    if missing or unknown:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown {unknown[0]}"
        raise UsageError(f"Telescope {row} in the layout file {path} {problem}: write {example}.")
    for key in KEYS:
        value = entry[key]
        kinds = int if key == "id" else int | float
        # Whole numbers may be too long for a float, NaN is not below anything.
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < 1e300:
            what = "a whole number" if key == "id" else "a number of metres"
            raise UsageError(
                f"{key} of telescope {row} in the layout file {path} is '{_one_line(value)}': it "
                f"must be {what}."
            )
    return (entry["id"], *(float(entry[key]) for key in KEYS[1:]))
