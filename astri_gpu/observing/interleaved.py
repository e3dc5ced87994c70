"""What telescopes send between the showers: flashes, pedestals, housekeeping, variance images."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from astri_gpu.kernels.random import key_of, normal_pair, philox, uniform
from astri_gpu.kernels.simulation_types import CameraModel, Stream
from astri_gpu.observing.triggers import NO_SHOWER, Triggers, joined
from astri_gpu.simulation.calibration import (
    FLATFIELD,
    SKY_PEDESTAL,
    VARIANCE_SAMPLES,
    calibration_images,
    drawn_variances,
)
from astri_gpu.simulation.engine import ShowerEngine
from astri_gpu.simulation.writer import NS

if TYPE_CHECKING:
    from astri_gpu.config_observation import InterleavedConfig
    from astri_gpu.observing.plan import RunPlan

__all__ = ["FLATFIELD_EVENT", "PEDESTAL_EVENT", "Interleaved"]

FLATFIELD_EVENT, PEDESTAL_EVENT = 0, 2
"""Event types of packets."""

PHASE, TEMPERATURE = 2, 3
"""Index of the random stream `TIME`: begin of a rhythm, temperature of a camera."""
TEMPERATURE_C, SPREAD_C, COOLING_C_PER_H = 15.0, 0.5, -0.4
VOLTAGE_V = 54.0
STATUS = 1 | 2 | 4 | 8  # tracking, sensors on, lid open, clock locked

Ints = NDArray[np.int64]


class Interleaved:
    """Makes them, every telescope with rhythms of its own.

    Parameters
    ----------
    config
        How often.
    plan
        Of the run.
    camera
        Of all telescopes.
    """

    def __init__(self, config: "InterleavedConfig", plan: "RunPlan", camera: CameraModel) -> None:
        self._config, self._plan, self._camera = config, plan, camera
        self._seed = plan.calibration_settings.seed
        tel_id = plan.layout.tel_id.astype(np.int64)
        words = philox(tel_id, Stream.TIME << 24 | PHASE, 0, 0, key=key_of(self._seed))
        self._phase = {SKY_PEDESTAL: uniform(words[0]), FLATFIELD: uniform(words[1])}
        words = philox(tel_id, Stream.TIME << 24 | TEMPERATURE, 0, 0, key=key_of(self._seed))
        self._temperature = TEMPERATURE_C + SPREAD_C * normal_pair(words[0], words[1])[0]
        self._variances: dict[int, NDArray[np.float64]] = {}

    def triggers(self, engine: ShowerEngine, start_s: float, stop_s: float) -> Triggers | None:
        """Return flashes and pedestals of a part of the run, with their images."""
        config = self._config
        parts = []
        for kind, event_type, rate in (
            (SKY_PEDESTAL, PEDESTAL_EVENT, config.pedestal_hz),
            (FLATFIELD, FLATFIELD_EVENT, config.flatfield_hz),
        ):
            number, tel = self._numbers(kind, rate, start_s, stop_s)
            if not len(tel):
                continue
            light = np.zeros(len(tel))
            if kind == FLATFIELD:
                levels = np.asarray(config.flatfield_pe, np.float64)
                light = levels[number % len(levels)]
            n_pixels = self._camera.efficiency.shape[1]
            images = calibration_images(engine, n_pixels, kind, number, tel, light)
            seconds = (number + self._phase[kind][tel]) / rate
            parts.append(
                Triggers(
                    tel=tel,
                    time_ns=np.rint(seconds * NS).astype(np.int64),
                    event=np.full(len(tel), NO_SHOWER),
                    event_type=np.full(len(tel), event_type, np.uint8),
                    adc=images.adc,
                    pixels=images.trigger_pixel,
                )
            )
        return joined(parts) if parts else None

    def _numbers(self, kind: int, rate: float, start_s: float, stop_s: float) -> tuple[Ints, Ints]:
        """Return number and telescope of the events (number + phase) / rate in [start, stop)."""
        if not rate:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        first, last = (
            np.ceil(moment * rate - self._phase[kind]).astype(np.int64)
            for moment in (start_s, stop_s)
        )
        numbers = [np.arange(low, high) for low, high in zip(first, last, strict=True)]
        tel = np.repeat(np.arange(len(numbers)), [len(some) for some in numbers])
        return np.concatenate(numbers), tel

    def housekeeping_times(self, start_ns: int, stop_ns: int) -> Ints:
        """Return when housekeeping is sent in [start, stop), ns from the start of the run."""
        return self._beats(self._config.housekeeping_s, start_ns, stop_ns)[1]

    def housekeeping(self, tel: int, time_ns: Ints) -> dict[str, NDArray]:
        """Return the columns that do not come from the counters of the readout."""
        alt, az = self._plan.track.pointing(time_ns / NS)
        hours = time_ns / (3600 * NS)
        return {
            "pointing_alt_deg": alt,
            "pointing_az_deg": az,
            "camera_temperature_c": self._temperature[tel] + COOLING_C_PER_H * hours,
            "high_voltage_v": np.full(len(time_ns), VOLTAGE_V),
            "status": np.full(len(time_ns), STATUS, np.uint16),
        }

    def variances(self, tel: int, start_ns: int, stop_ns: int) -> tuple[Ints, dict[str, NDArray]]:
        """Return times and columns of the variance images in [start, stop)."""
        number, time_ns = self._beats(self._config.variance_s, start_ns, stop_ns)
        self._variances = {
            k: self._variances[k]
            if k in self._variances
            else drawn_variances(self._camera, k, self._seed)
            for k in number.tolist()
        }
        n_pixels = self._camera.efficiency.shape[1]
        images = [image[tel] for image in self._variances.values()]
        return time_ns, {
            "n_samples": np.full(len(number), VARIANCE_SAMPLES),
            "variance": np.array(images, np.float32).reshape(-1, n_pixels),
        }

    @staticmethod
    def _beats(every_s: float, start_ns: int, stop_ns: int) -> tuple[Ints, Ints]:
        step = every_s * NS
        number = np.arange(int(np.ceil(start_ns / step)), int(np.ceil(stop_ns / step)))
        return number, np.rint(number * step).astype(np.int64)
