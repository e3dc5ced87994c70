"""The stages of the command line: options, a line for `--help`, examples, config groups."""

from dataclasses import dataclass

from astri_gpu.config_data import (
    DisplayConfig,
    ExportConfig,
    InfoConfig,
    IngestConfig,
    ProcessConfig,
    ReportConfig,
)
from astri_gpu.config_observation import (
    BuildEventsConfig,
    CalibrateConfig,
    PreprocessConfig,
    SimulateObservationConfig,
)
from astri_gpu.config_pipeline import RunConfig, SweepReportConfig
from astri_gpu.config_reconstruction import ReconstructConfig, TrainConfig
from astri_gpu.config_response import CheckConfig, IrfConfig, OptimizeConfig, SelectConfig
from astri_gpu.config_science import ProvenanceConfig, ScienceConfig
from astri_gpu.config_simulation import SimulateConfig
from astri_gpu.options import Section, specs

__all__ = ["GROUPS", "STAGES", "Stage"]

# Sections with a folder of alternatives, in the order in which `--help` shows them.
GROUPS = (
    "backend",
    "execution",
    "array",
    "atmosphere",
    "spectrum",
    "view",
    "shower",
    "optics",
    "camera",
    "calibration_events",
    "calibration",
    "cleaning",
    "stereo",
    "features",
    "forest",
    "sample",
    "cuts",
    "flux",
    "binning",
    "observation",
    "clock",
    "interleaved",
    "pipeline",
)


@dataclass(frozen=True)
class Stage:
    """One stage of the command line."""

    config: type[Section]
    line: str
    examples: tuple[str, ...]
    experiments: bool = False  # whether the files of configs/experiment are written for it
    sweeps: bool = False  # whether the search spaces of configs/sweep are

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the names of the config groups of the stage, `experiment` and `sweep` last."""
        nested = {spec.key.split(".")[0] for spec in specs(self.config) if "." in spec.key}
        order = [name for name in GROUPS if name in nested]
        more = {"experiment": self.experiments, "sweep": self.sweeps}
        return (*order, *(name for name, there in more.items() if there))


STAGES: dict[str, Stage] = {
    "simulate": Stage(
        SimulateConfig,
        "fast simulation of showers and of the array -> DL0 store",
        (
            "astri-gpu simulate production=gamma n_showers=200000 seed=1 output=gamma_dl0.zarr",
            "astri-gpu simulate production=proton n_showers=100000 seed=2 output=proton.zarr \\\n"
            "    camera=moon array=single view.zenith_deg=40 calibration_events=standard",
        ),
    ),
    "simulate-observation": Stage(
        SimulateObservationConfig,
        "a night's run of the array, shower by shower -> camera packets",
        (
            "astri-gpu simulate observation output=raw observation=flare flux=flare",
            "astri-gpu simulate observation output=raw observation.duration_s=300 \\\n"
            "    camera=moon clock.offset_us=20 seed=3",
        ),
    ),
    "preprocess": Stage(
        PreprocessConfig,
        "camera packets of a run (raw) -> DL0 FITS files (CCPP)",
        (
            "astri-gpu preprocess raw output=dl0",
            "astri-gpu preprocess raw output=dl0 wait_s=3600 execution.n_workers=2",
        ),
    ),
    "build-events": Stage(
        BuildEventsConfig,
        "DL0 files of all telescopes -> stereo events (SEB0), clocks compared on the way",
        (
            "astri-gpu build-events dl0 output=seb0.fits",
            "astri-gpu build-events dl0 output=seb0.fits window_half_width_us=0.5 \\\n"
            "    truth=raw/truth.fits",
        ),
    ),
    "calibrate": Stage(
        CalibrateConfig,
        "DL0 calibration events -> camera constants (CAL1)",
        (
            "astri-gpu calibrate dl0 output=cal1.fits",
            "astri-gpu calibrate dl0 output=cal1.fits interval_s=300",
        ),
    ),
    "ingest": Stage(
        IngestConfig,
        "files of sim_telarray, DL0 FITS of a run -> DL0 store; of ctapipe -> DL1a store",
        (
            "astri-gpu ingest gamma.simtel.zst output=gamma_dl0.zarr",
            "astri-gpu ingest damaged.simtel.gz output=rest.zarr on_error=keep overwrite=true",
            "astri-gpu ingest gamma.dl1.h5 output=gamma_dl1.zarr",
            "astri-gpu ingest dl0 format=dl0_fits events=seb0.fits constants=cal1.fits \\\n"
            "    output=run_dl0.zarr",
        ),
    ),
    "process": Stage(
        ProcessConfig,
        "DL0 store -> image parameters (DL1b) and stereo geometry (DL2a)",
        (
            "astri-gpu process gamma_dl0.zarr output=gamma_dl2.zarr backend=cpu",
            "astri-gpu process gamma_dl0.zarr 'output=scan_${cleaning.picture_pe}.zarr' \\\n"
            "    cleaning.picture_pe=5,6,8 --multirun",
        ),
        experiments=True,
    ),
    "train": Stage(
        TrainConfig,
        "DL2a stores of gammas and protons -> forests for energy, class and direction",
        (
            "astri-gpu train gamma_dl2.zarr proton_dl2.zarr output=forests.skops",
            "astri-gpu train input='train/*.zarr' output=trees.skops forest=extra_trees \\\n"
            "    features=astri sample=levelled",
        ),
    ),
    "reconstruct": Stage(
        ReconstructConfig,
        "DL2a store and forests -> energy, gammaness, direction (DL1c, DL2b)",
        (
            "astri-gpu reconstruct gamma_dl2.zarr model=forests.skops output=gamma_dl2b.zarr",
            "astri-gpu reconstruct 'dl2/*.zarr' model=forests.skops output=dl2b execution=dask",
        ),
    ),
    "optimize": Stage(
        OptimizeConfig,
        "DL2b stores of gammas and background -> cuts of an event class; what sweeps run",
        (
            "astri-gpu optimize gamma_dl2b.zarr proton_dl2b.zarr output=cc03.fits",
            "astri-gpu optimize input='dl2b/*.zarr' output=cc12.fits cuts=cc12",
            "astri-gpu optimize gamma_dl0.zarr proton_dl0.zarr train='train/*.zarr' \\\n"
            "    cleaning=astri,mars cuts.max_theta_deg=0.2,0.3 forest=draft,extra_trees \\\n"
            "    --multirun hydra.sweep.dir=sweep",
            "astri-gpu optimize input='dl2b/*.zarr' sweep=cuts --multirun hydra.sweep.dir=study",
        ),
        experiments=True,
        sweeps=True,
    ),
    "irf": Stage(
        IrfConfig,
        "DL2b stores and cuts -> instrument response (IRF2, IRF3), sensitivity and other curves",
        (
            "astri-gpu irf gamma_dl2b.zarr proton_dl2b.zarr cut_files=cc03.fits output=irf",
            "astri-gpu irf input='dl2b/*.zarr' cut_files='cuts/*.fits' output=irf point_like=true",
        ),
    ),
    "select": Stage(
        SelectConfig,
        "DL2b store of an observation (or simulated), cuts and response -> DL3 (GADF)",
        (
            "astri-gpu select run_dl2b.zarr cut_file=cc03.fits response=irf/cc03.irf2.fits.gz \\\n"
            "    output=dl3",
            "astri-gpu select gamma_dl2b.zarr proton_dl2b.zarr cut_file=cc03.fits \\\n"
            "    response=irf/cc03.irf2.fits.gz output=crab observation.n_runs=4",
        ),
    ),
    "science": Stage(
        ScienceConfig,
        "DL3 (GADF) -> detection, maps, spectrum, light curve, with Gammapy (DL4, DL5)",
        (
            "astri-gpu science dl3 output=science",
            "astri-gpu science dl3 output=science sed.model=log_parabola light_curve.bin_s=300",
        ),
    ),
    "check": Stage(
        CheckConfig,
        "event lists, response and index files: do they keep to the format (GADF)?",
        ("astri-gpu check dl3/*.fits", "astri-gpu check input='dl3/*' strict=true"),
    ),
    "run": Stage(
        RunConfig,
        "a whole chain of stages, from nothing to sensitivity and DL3",
        (
            "astri-gpu run pipeline=montecarlo output=first",
            "astri-gpu run pipeline=montecarlo output=first pipeline.values.n_gammas=200000",
        ),
    ),
    "sweep-report": Stage(
        SweepReportConfig,
        "results of a sweep -> pictures, table, best configuration",
        (
            "astri-gpu sweep-report sweep output=sweep_report",
            "astri-gpu sweep-report study/results.parquet output=study_report dpi=200",
        ),
    ),
    "export": Stage(
        ExportConfig,
        "processed store -> HDF5 file that ctapipe reads, or A-SciSoft-like FITS",
        (
            "astri-gpu export gamma_dl2.zarr output=gamma_dl2.h5",
            "astri-gpu export input='dl2/*.zarr' output=ctapipe images=false",
            "astri-gpu export gamma_dl2.zarr output=gamma.lv2a.fits format=astri level=lv2a",
        ),
    ),
    "report": Stage(
        ReportConfig,
        "DL2a or DL2b stores of simulated events -> an illustrated report",
        (
            "astri-gpu report gamma_dl2.zarr proton_dl2.zarr output=report",
            "astri-gpu report input='dl2/*.zarr' output=report overwrite=true bins_per_decade=4",
        ),
    ),
    "provenance": Stage(
        ProvenanceConfig,
        "where a product comes from: its steps, back to the raw files (W3C PROV)",
        (
            "astri-gpu provenance science/report.html",
            "astri-gpu provenance run_dl2b.zarr output=run_dl2b.prov.json",
        ),
    ),
    "info": Stage(
        InfoConfig,
        "what a store holds: cameras, events, particle, provenance",
        ("astri-gpu info gamma_dl0.zarr", "astri-gpu info input=gamma_dl2.zarr"),
    ),
    "display": Stage(
        DisplayConfig,
        "pictures of an event: camera images, ground and field of view",
        (
            "astri-gpu display gamma_dl2.zarr output=event.png",
            "astri-gpu display gamma_dl2.zarr output=array.png what=array event_id=7",
        ),
    ),
}
