"""Sections of options that several stages share: backend, execution, calibration, cleaning …"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from astri_gpu.errors import UsageError
from astri_gpu.options import Section, option

__all__ = [
    "BackendConfig",
    "CalibrationConfig",
    "CleaningConfig",
    "ExecutionConfig",
    "ParameterConfig",
    "StereoConfig",
]


@dataclass
class BackendConfig(Section):
    """What computes."""

    section: ClassVar[str] = "backend"

    name: str = option(
        "auto",
        choices=["auto", "numpy", "cpu", "jax", "cupy"],
        help="what computes; auto takes the fastest one that is installed",
    )
    threads: int = option(0, low=0, help="CPU threads of the compiled loops; 0 = all cores")
    devices: int = option(
        1,
        low=0,
        help="devices of this process that share the images of a batch (process with jax); 0 = all",
    )


@dataclass
class ExecutionConfig(Section):
    """Who does the work when there are several inputs or parts, and with how much of the machine.

    A unit of work is one input file or one part of a production. A worker is one process; it works
    on one unit at a time, and owns one GPU where the backend computes on GPUs.
    """

    section: ClassVar[str] = "execution"

    engine: str = option(
        "local",
        choices=["local", "dask"],
        help="processes of this machine, or workers of Dask",
    )
    cluster: str = option(
        "local",
        choices=["local", "slurm", "cuda"],
        help="where Dask starts workers (engine=dask): on this machine, in Slurm jobs, or on this "
        "machine with one per GPU (dask-cuda)",
    )
    address: str | None = option(
        None, help="of a Dask scheduler that runs already, tcp://HOST:PORT; null = start one"
    )
    n_workers: int = option(
        0,
        low=0,
        help="processes over the units; 0 = what suits the stage: one per core, one per GPU, or "
        "one that uses all cores",
    )
    threads_per_worker: int = option(
        0, low=0, help="CPU threads of a worker; 0 = cores of the machine over workers"
    )
    memory_per_worker_gib: float | None = option(
        None,
        above=0,
        unit="GiB",
        help="Dask restarts a worker that takes more, and Slurm reserves it; null = no limit, and "
        "4 GiB in Slurm",
    )
    retries: int = option(
        2, low=0, high=100, help="times that a unit is tried again after its worker died"
    )
    queue: str | None = option(None, help="Slurm partition; null = the default one")
    account: str | None = option(None, help="Slurm account; null = the default one")
    walltime: str = option("04:00:00", help="time limit of a Slurm job, HH:MM:SS")
    workers_per_job: int = option(1, low=1, help="workers in one Slurm job")
    gpus_per_job: int = option(0, low=0, help="GPUs of one Slurm job, shared out to its workers")
    job_directives: list[str] = option(
        [], help="more of sbatch for every job, such as [--constraint=a100]"
    )
    job_prologue: list[str] = option(
        [], help="shell lines before the worker starts, such as ['module load cuda']"
    )
    interface: str | None = option(
        None, help="network interface of scheduler and workers, such as ib0; null = the default"
    )
    log_directory: str = option("slurm_logs", help="folder for what Slurm jobs print")

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or that do not fit together."""
        super().validate()
        if self.engine == "local" and (self.cluster != "local" or self.address is not None):
            given = f"cluster={self.cluster}" if self.cluster != "local" else "address=..."
            raise UsageError(
                f"execution.{given} belongs to Dask: add execution.engine=dask, or choose "
                "execution=dask, execution=slurm or execution=cuda."
            )
        if self.cluster == "slurm" and self.address is None and not self.n_workers:
            raise UsageError(
                "execution.n_workers is 0: say how many workers to ask Slurm for, for example "
                "execution.n_workers=8."
            )
        if not re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", self.walltime):
            raise UsageError(
                f"execution.walltime is '{self.walltime}': it must be HH:MM:SS or D-HH:MM:SS"
            )


@dataclass
class CalibrationConfig(Section):
    """From ADC counts to photo-electrons."""

    section: ClassVar[str] = "calibration"

    constants: str = option(
        "store",
        choices=["store", "events"],
        help="constants that came with the store, or measured from its pedestal and flat-field "
        "events",
    )
    crosstalk: float = option(
        0.10,
        low=0,
        high=0.5,
        help="probability that an avalanche starts another one (constants=events)",
    )
    gain_spread: float = option(
        0.06,
        low=0,
        high=1,
        help="relative standard deviation of the charge of an avalanche (constants=events)",
    )
    gain_threshold_adc: float = option(
        4000.0,
        above=0,
        unit="ADC counts",
        help="pixels with a high-gain sample above this use the low gain",
    )
    extractor: str = option(
        "neighbour_peak",
        choices=["neighbour_peak", "local_peak", "global_peak", "fixed_window", "full_sum"],
        help="where the integration window of a waveform is put",
    )
    window_width: int = option(7, low=1, unit="samples", help="length of the integration window")
    window_shift: int = option(
        3, low=0, unit="samples", help="the window starts this long before the peak"
    )
    peak_index: int = option(
        0, low=0, unit="samples", help="peak position of extractor=fixed_window"
    )
    local_weight: int = option(
        0, low=0, help="weight of the pixel itself beside its neighbours (neighbour_peak)"
    )
    integration_correction: bool = option(
        True, help="correct for the part of the reference pulse outside the window"
    )
    interpolate_invalid: bool = option(
        True, help="give disabled pixels the mean charge and time of their neighbours"
    )
    focal_length: str = option(
        "auto",
        choices=["auto", "effective", "equivalent"],
        help="focal length of the sky coordinates; auto: effective where it is known",
    )


@dataclass
class CleaningConfig(Section):
    """Which pixels belong to the shower."""

    section: ClassVar[str] = "cleaning"

    method: str = option(
        "tailcuts",
        choices=["tailcuts", "mars", "nsb", "time_constrained"],
        help="two thresholds; three thresholds; two thresholds that follow the pedestal noise; "
        "two thresholds with arrival times",
    )
    picture_pe: float = option(6.0, above=0, unit="p.e.", help="threshold of core pixels")
    boundary_pe: float = option(
        3.0, low=0, unit="p.e.", help="threshold of pixels beside a core pixel"
    )
    second_boundary_pe: float = option(
        3.0, low=0, unit="p.e.", help="threshold of the second row of boundary pixels (mars)"
    )
    min_picture_neighbours: int = option(
        1, low=0, high=8, help="core pixels need this many neighbours above picture_pe"
    )
    keep_isolated: bool = option(False, help="keep core pixels without any surviving neighbour")
    diagonal_neighbours: bool = option(True, help="pixels that touch at a corner are neighbours")
    min_core_pixels: int = option(3, low=0, help="drop images with fewer core pixels")
    pedestal_factor: float = option(
        2.5, low=0, help="a core pixel exceeds this many pedestal standard deviations (nsb)"
    )
    time_limit_ns: float = option(
        0.0,
        low=0,
        unit="ns",
        help="drop pixels without neighbours within this time; 0 = no such step",
    )
    time_min_neighbours: int = option(
        1, low=1, high=8, help="neighbours that have to be within time_limit_ns"
    )
    time_limit_core_ns: float = option(
        4.5,
        above=0,
        unit="ns",
        help="core pixels lie this near to the mean arrival time (time_constrained)",
    )
    time_limit_boundary_ns: float = option(
        1.5,
        above=0,
        unit="ns",
        help="boundary pixels lie this near to a core neighbour (time_constrained)",
    )
    dilate_rows: int = option(0, low=0, high=20, help="rows of neighbours added in the end")
    largest_island_only: bool = option(False, help="keep only the island with the most pixels")

    def validate(self) -> None:
        """Raise a `UsageError` for values out of range or thresholds in the wrong order."""
        super().validate()
        steps = ["picture_pe", "boundary_pe"]
        if self.method == "mars":
            steps.append("second_boundary_pe")
        for upper, lower in pairwise(steps):
            high, low = getattr(self, upper), getattr(self, lower)
            if low > high:
                raise UsageError(
                    f"cleaning.{lower} is {low:g}: it must be at most cleaning.{upper} "
                    f"({high:g} p.e.)"
                )


@dataclass
class ParameterConfig(Section):
    """Image parameters."""

    section: ClassVar[str] = "parameters"

    source_fov_lon_deg: float = option(
        0.0,
        low=-90,
        high=90,
        unit="deg",
        help="assumed source in the field of view, for dist, miss and alpha",
    )
    source_fov_lat_deg: float = option(
        0.0, low=-90, high=90, unit="deg", help="the other coordinate of the assumed source"
    )
    min_pixels: int = option(2, low=1, help="images with fewer pixels are not parametrised")


@dataclass
class StereoConfig(Section):
    """Shower direction, core and height from several images."""

    section: ClassVar[str] = "stereo"

    method: str = option(
        "planes",
        choices=["planes", "lines"],
        help="intersect shower-detector planes, or image axes with weights",
    )
    min_intensity_pe: float = option(
        50.0, low=0, unit="p.e.", help="images take part above this intensity"
    )
    min_pixels: int = option(4, low=1, help="images take part with at least this many pixels")
    min_width_deg: float = option(0.0, low=0, unit="deg", help="images take part above this width")
    max_leakage: float = option(
        1.0,
        low=0,
        high=1,
        help="images take part up to this leakage_intensity_width_2",
    )
