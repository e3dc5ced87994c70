"""Waveforms of a real file to image parameters, beside ctapipe's calibrator and image processor."""

from ..row import Measured, NotMeasured, Row, Settings, reference
from ..waveforms import measure_waveforms

__all__ = ["ROW"]


def measure(settings: Settings) -> Measured:
    """Return the rate of the cpu backend on the first file that has waveforms."""
    if not settings.simtel:
        raise NotMeasured("no sim_telarray file: give --simtel FILE")
    found = None
    for path in settings.simtel:
        found = measure_waveforms(
            path,
            n_images=settings.size(400, 20),
            n_rounds=settings.size(7, 1),
            threads=settings.threads,
            folder=settings.scratch,
        )
        if found:
            break
    if not found:
        raise NotMeasured("none of the files has waveforms")
    ours, one = found["rates"]["cpu"], found["rates"]["cpu, one thread"]
    n_gains, n_pixels, n_samples = found["shape"]
    notes = [
        f"{found['camera']} images of {n_gains} gains, {n_pixels} pixels and {n_samples} samples "
        f"({found['file']}), {found['n_images']} a batch",
        f"one thread: {one['images_per_s']:,.0f} images/s",
        "ctapipe starts from calibrated waveforms, ours from counts",
    ]
    peer = found["rates"].get("ctapipe")
    if peer is None:
        notes.append("the peer is not measured: ctapipe is not installed")
    return Measured(
        rate=ours["images_per_s"],
        peer="ctapipe's calibrator and image processor",
        peer_rate=peer and peer["images_per_s"],
        ratio=ours["ratio_to_ctapipe"],
        ceiling=f"reading {found['bytes']} bytes an image from memory",
        ceiling_rate=found["ceiling_images_per_s"],
        error=found["error"]["worst"],
        error_from=reference(found["error"]["worst"], found["error"]["column"]),
        peak_memory_mib=found["peak_memory_mib"],
        notes=tuple(notes),
        details=found,
    )


ROW = Row("waveforms", "waveforms → DL1b in memory, cpu backend, all cores", "", measure)
