"""What is behind and in front of the pixels: the readout and the optics of a camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Optics", "Readout"]


@dataclass(frozen=True, eq=False)
class Readout:
    """How a camera is read out.

    `reference_pulse` is float64 (gain, pulse_sample), in steps of `reference_pulse_step_ns`.
    `n_samples` is 1 for cameras without waveforms; `saturation_adc` is None when it is unknown.
    """

    n_gains: int
    n_samples: int
    sampling_rate_ghz: float
    reference_pulse: NDArray[np.float64]
    reference_pulse_step_ns: float
    saturation_adc: float | None = None

    def integration_correction(self, window_width: int, window_shift: int) -> NDArray[np.float64]:
        """Return the factor that scales a windowed sum to the whole reference pulse, (gain,).

        The reference pulse is binned in samples, normalised, and summed over the window around
        its maximum; the factor is the inverse (``ctapipe.image.extractor.integration_correction``).
        It is 1 where there is no usable pulse.

        Parameters
        ----------
        window_width
            Samples in the integration window.
        window_shift
            Samples of the window before the peak.

        Returns
        -------
        correction
            float64 (gain,).
        """
        correction = np.ones(len(self.reference_pulse), dtype=np.float64)
        sample_ns = 1.0 / self.sampling_rate_ghz
        step_ns = self.reference_pulse_step_ns
        for gain, pulse in enumerate(self.reference_pulse):
            length_ns = pulse.size * step_ns
            time_ns = np.arange(0, length_ns, step_ns)[: pulse.size]
            edges = np.arange(0, length_ns, sample_ns)
            binned, _ = np.histogram(time_ns, edges, weights=pulse)
            if len(edges) < 2 or binned.sum() == 0:
                continue
            sampled = binned / np.diff(edges) / binned.sum()
            start = max(0, int(sampled.argmax()) - window_shift)
            end = min(start + window_width, sampled.size)
            if start >= end:
                continue
            integral = np.sum(sampled[start:end] * sample_ns)
            if integral != 0:
                correction[gain] = 1.0 / integral
        return correction


@dataclass(frozen=True)
class Optics:
    """Optics of one telescope type; the effective focal length is None when it is unknown.

    The equivalent focal length `focal_length_m` is that of the optical design, the effective one
    includes coma: measured on simulated images, it is the right scale for directions.
    """

    name: str
    focal_length_m: float
    effective_focal_length_m: float | None
    mirror_area_m2: float
    n_mirrors: int
