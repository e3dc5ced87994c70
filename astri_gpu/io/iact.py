"""Photon bunches of CORSIKA, as its IACT extension writes them (EventIO files, Bernloehr 2008).

The array frame of such a file is our ground frame: x towards North (of the array), y towards West,
z up, in cm. A bunch is given by the place where it crosses the horizontal plane through the centre
of a telescope (a sphere that collects light), relative to that centre, and by the cosines of its
flight, which point downwards. Its time counts from the moment when the primary, at the speed of
light, reaches the observation level. The core of the shower lies at minus the offset of the array.
Bunches and offsets are rotated by ARRANG already, the direction in the event header is not
(CORSIKA User's Guide, IACT option; the numbers of the three test files confirm each of these).
"""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from astri_gpu.errors import AstriError

__all__ = ["Bunches", "IactEvent", "IactReader", "IactRun", "primary_id"]

PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd
CM_PER_M = 100.0
GEV_PER_TEV = 1000.0

# Bits of the Cherenkov flag in the event header (CORSIKA User's Guide, event header word 77).
CEFFIC_COMPILED = 1 << 2
EFFICIENCY_CARD = "CERQEF"

# Particle codes of CORSIKA and of sim_telarray; nuclei are 100 A + Z in both.
LIGHT_PARTICLES = {1: 0, 2: -1, 3: 1, 5: -2, 6: 2}
PROTON, PROTON_CORSIKA = 101, 14
FIRST_NUCLEUS = 200


def primary_id(corsika: int) -> int:
    """Return sim_telarray's number of a CORSIKA particle: 0 gamma, 1 e-, 101 p, 402 He; -1 = other.

    Positron and positive muon are -1 and -2 there; nuclei are 100 A + Z in both.
    """
    if corsika == PROTON_CORSIKA:
        return PROTON
    if corsika >= FIRST_NUCLEUS:
        return corsika
    return LIGHT_PARTICLES.get(corsika, -1)


BUNCH_COLUMNS = ("x", "y", "cx", "cy", "time", "zem", "photons", "wavelength")


class Bunches(NamedTuple):
    """Photon bunches that hit the sphere around one telescope, float64."""

    x: NDArray[np.float64]  # m towards North, where the bunch crosses the level of the centre
    y: NDArray[np.float64]  # m towards West
    flight_x: NDArray[np.float64]  # cosine of the direction of flight
    flight_y: NDArray[np.float64]
    time: NDArray[np.float64]  # ns, there; 0 = front of the primary at the observation level
    emission_height: NDArray[np.float64]  # m above sea level
    photons: NDArray[np.float64]
    wavelength: NDArray[np.float64]  # nm, 0 = not drawn by CORSIKA


@dataclass(frozen=True)
class IactRun:
    """What holds for a whole file; lengths in m, energies in TeV, angles in deg."""

    run_number: int
    corsika_version: float
    observation_level_m: float
    n_showers: int
    energy_min_tev: float
    energy_max_tev: float
    spectral_index: float
    scatter_m: float  # largest distance of the core from the array centre along one axis
    position: NDArray[np.float64]  # (tel, 3), centres of the spheres
    radius: NDArray[np.float64]  # (tel,)
    input_card: str


@dataclass(frozen=True)
class IactEvent:
    """One use of one shower; lengths in m, energies in TeV, angles in deg."""

    shower: int
    use: int
    weight: float  # of importance sampling of the core
    true_energy: float
    true_primary_id: int
    true_alt: float
    true_az: float  # North (of the array) over East
    view_alt: float  # centre of the view cone; the primary itself where directions are drawn
    view_az: float
    core_x: float  # towards North, on the observation level
    core_y: float  # towards West
    first_interaction_height: float  # above sea level
    starting_grammage: float  # g/cm2
    n_uses: int
    cone_min_deg: float
    cone_max_deg: float
    wavelength_min_nm: float
    wavelength_max_nm: float
    n_photons: float  # in all bunches of all telescopes
    bunches: tuple[Bunches, ...]  # one entry per telescope


class IactReader:
    """Events of one CORSIKA IACT file, in order; a context manager.

    Raises
    ------
    AstriError
        When the file is missing, no IACT file, without telescopes, truncated or damaged: while
        opening for everything before the first event, else while iterating.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._n_events = 0
        _check_readable(path)
        try:
            # eventio's external gzip hides checksum errors; Python's raises them.
            self._file = _quietly(lambda: _eventio().IACTFile(str(path), zcat=False))
        except Exception as error:  # eventio raises many kinds on bytes it does not expect
            raise AstriError(_opening_message(path, error)) from error
        try:
            self.run = _run(self._file, path)
        except AstriError:
            raise
        except Exception as error:  # a header of another version, or of odd bytes
            raise AstriError(_opening_message(path, error)) from error

    def __enter__(self) -> "IactReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[IactEvent]:
        events = iter(self._file)
        while True:
            try:
                event = _quietly(lambda: next(events, None))
            except Exception as error:  # the same, in the middle of the file
                raise AstriError(self._message(error)) from error
            if event is None:
                break
            try:
                made = self._event(event)
            except ValueError as error:  # fields that the version in the header does not have
                raise AstriError(self._message(error)) from error
            yield made
            self._n_events += 1

    def _message(self, error: BaseException) -> str:
        what = "is truncated" if _is_end(error) else f"is damaged ({_short(error)})"
        return (
            f"The CORSIKA file {self.path} {what} after {self._n_events} complete events "
            f"(of {self.run.n_showers} showers): copy it again, or let CORSIKA finish."
        )

    def _event(self, event: Any) -> IactEvent:
        header = event.header
        number = int(header["event_number"])
        self._check_efficiencies(header)
        turned = float(header["angle_array_x_magnetic_north"])
        alt, az = _origin(float(header["zenith"]), float(header["azimuth"]) - turned)
        view_alt, view_az = alt, az
        limits = [float(header[name]) for name in ("theta_min", "theta_max", "phi_min", "phi_max")]
        if limits[0] == limits[1] and limits[2] == limits[3]:  # THETAP and PHIP of a view cone
            view_alt, view_az = _origin(math.radians(limits[0]), math.radians(limits[2]) - turned)
        return IactEvent(
            shower=number,
            use=int(event.reuse),
            weight=float(event.reuse_weight),
            true_energy=float(header["total_energy"]) / GEV_PER_TEV,
            true_primary_id=primary_id(int(header["particle_id"])),
            true_alt=alt,
            true_az=az,
            view_alt=view_alt,
            view_az=view_az,
            core_x=float(event.impact_x) / CM_PER_M,
            core_y=float(event.impact_y) / CM_PER_M,
            # Negative where CORSIKA tracks the primary from the top (TSTART).
            first_interaction_height=abs(float(header["first_interaction_height"])) / CM_PER_M,
            starting_grammage=float(header["starting_altitude"]),
            n_uses=int(header["n_reuse"]),
            cone_min_deg=float(header["viewcone_inner_angle"]),
            cone_max_deg=float(header["viewcone_outer_angle"]),
            wavelength_min_nm=float(header["cherenkov_wavelength_min"]),
            wavelength_max_nm=float(header["cherenkov_wavelength_max"]),
            n_photons=float(sum(event.n_photons.values())),
            bunches=tuple(
                self._bunches(event.photon_bunches.get(tel), number)
                for tel in range(len(self.run.radius))
            ),
        )

    def _check_efficiencies(self, header: Any) -> None:
        """Refuse light that CORSIKA has thinned already: it would be thinned twice."""
        if not int(header["cerenkov_flag"]) & CEFFIC_COMPILED:
            return
        for line in self.run.input_card.splitlines():
            words = line.split()
            if words and words[0].upper() == EFFICIENCY_CARD and "T" in map(str.upper, words[1:4]):
                raise AstriError(
                    f"The CORSIKA file {self.path} holds photo-electrons ({line.strip()}): "
                    "simulate it without the option CERQEF, the telescope comes from here."
                )

    def _bunches(self, raw: NDArray[Any] | None, shower: int) -> Bunches:
        if raw is None:
            return Bunches(*(np.zeros(0) for _ in Bunches._fields))
        table = {name: raw[name].astype(np.float64) for name in BUNCH_COLUMNS}
        bad = [name for name, values in table.items() if not np.isfinite(values).all()]
        if bad:
            raise AstriError(
                f"The CORSIKA file {self.path} is damaged: bunches of shower {shower} have a "
                f"{bad[0]} that is no number; copy it again."
            )
        return Bunches(
            x=table["x"] / CM_PER_M,
            y=table["y"] / CM_PER_M,
            flight_x=table["cx"],
            flight_y=table["cy"],
            time=table["time"],
            emission_height=table["zem"] / CM_PER_M,
            photons=table["photons"],
            # A program with CEFFIC compiled in marks its wavelengths by a minus.
            wavelength=np.abs(table["wavelength"]),
        )


def _eventio() -> Any:
    import eventio

    return eventio


def _quietly(action: Any) -> Any:
    """Return what `action` gives; eventio's handles that are left open are no fault of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return action()


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise AstriError(f"{path} is a directory, not a CORSIKA IACT file.")
    try:
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except OSError as error:
        raise AstriError(f"The file {path} cannot be read ({error.strerror}).") from error
    if empty:
        raise AstriError(f"The file {path} is empty: copy it again.")


def _is_end(error: BaseException) -> bool:
    """Return whether an error of eventio comes from a file that ends too early."""
    # A generator that meets the end inside an event turns it into a RuntimeError.
    if isinstance(error, EOFError) or isinstance(error.__cause__, StopIteration):
        return True
    # The words of NumPy and struct for a block that is too short.
    return isinstance(error, StopIteration) or any(
        words in str(error) for words in ("buffer is smaller", "buffer size", "unpack requires")
    )


def _opening_message(path: Path, error: Exception) -> str:
    if "not an eventio file" in str(error):
        with path.open("rb") as stream:
            is_packed = stream.read(4).startswith(PACKED)
        if is_packed:
            return (
                f"The file {path} cannot be unpacked, or holds something else than a CORSIKA IACT "
                "file: copy it again."
            )
        return (
            f"The file {path} is not an EventIO file (plain, or packed with gzip or zstd): a "
            "CORSIKA IACT file (TELFIL) is needed."
        )
    if type(error).__name__ == "WrongType":
        return (
            f"The file {path} is an EventIO file but no CORSIKA IACT file ({_short(error)}): "
            "sim_telarray output is read by `astri-gpu ingest`."
        )
    if isinstance(error, ZeroDivisionError):  # eventio divides by the number of telescopes
        return _without_telescopes(path)
    what = "is truncated" if _is_end(error) else f"is damaged ({_short(error)})"
    return f"The CORSIKA file {path} {what} before its first event: copy it again."


def _without_telescopes(path: Path) -> str:
    return f"The CORSIKA file {path} has no telescopes: add TELESCOPE lines to its input card."


def _run(file: Any, path: Path) -> IactRun:
    header, table = file.header, file.telescope_positions
    if not len(table):
        raise AstriError(_without_telescopes(path))
    position = np.stack([table[name] for name in "xyz"], axis=1).astype(np.float64) / CM_PER_M
    return IactRun(
        run_number=int(header["run_number"]),
        corsika_version=float(header["version"]),
        observation_level_m=float(header["observation_height"][0]) / CM_PER_M,
        n_showers=int(header["n_showers"]),
        energy_min_tev=float(header["energy_min"]) / GEV_PER_TEV,
        energy_max_tev=float(header["energy_max"]) / GEV_PER_TEV,
        spectral_index=float(header["energy_spectrum_slope"]),
        scatter_m=max(float(header[name]) for name in ("x_scatter", "y_scatter")) / CM_PER_M,
        position=position,
        radius=table["r"].astype(np.float64) / CM_PER_M,
        input_card=bytes(file.input_card or b"").decode(errors="replace"),
    )


def _origin(zenith: float, flight: float) -> tuple[float, float]:
    """Return altitude and azimuth (deg) of the direction that a particle comes from.

    CORSIKA gives its direction of flight, counted from magnetic North over West (rad); the x axis
    of the array lies by `angle_array_x_magnetic_north` West of magnetic North, which is taken off
    before (User's Guide, ARRANG).
    """
    return 90.0 - math.degrees(zenith), (180.0 - math.degrees(flight)) % 360.0


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".")[:120] if text else type(error).__name__
