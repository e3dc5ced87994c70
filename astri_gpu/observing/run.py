"""The driver of `simulate-observation`: a run block by block, from particles to packet files."""

import re
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.batch import WriteBehind
from astri_gpu.dl0.header import run_cards
from astri_gpu.dl0.names import DESCRIPTION_ENDING, PATTERN, RAW_ENDING
from astri_gpu.dl0.run_description import write_description
from astri_gpu.lineage.cards import step_cards
from astri_gpu.observing.clocks import Clocks
from astri_gpu.observing.interleaved import Interleaved
from astri_gpu.observing.particles import seed_of
from astri_gpu.observing.plan import plan_run
from astri_gpu.observing.raw_file import PacketFile
from astri_gpu.observing.readout import Readout
from astri_gpu.observing.sky_events import SkyEvents, blocks
from astri_gpu.observing.triggers import Showers, joined
from astri_gpu.observing.truth_file import write_truth
from astri_gpu.output_folder import whole_folder
from astri_gpu.progress import Progress
from astri_gpu.provenance import now, provenance
from astri_gpu.store_disk import json_ready

if TYPE_CHECKING:
    from astri_gpu.config_observation import SimulateObservationConfig

__all__ = ["MadeRun", "make_run"]

TRUTH_ENDING = "_truth.fits"
ENDINGS = (RAW_ENDING, DESCRIPTION_ENDING, TRUTH_ENDING)


@dataclass(frozen=True)
class MadeRun:
    """What came of a run; `seconds` with everything."""

    output: Path
    description: Path
    truth: Path
    backend: str
    duration_s: float
    n_telescopes: int
    n_thrown: int
    n_showers: int
    """That triggered a telescope."""
    n_sci: int
    n_cal: int
    n_lost: int
    """Triggers in the dead time."""
    n_bytes: int
    seconds: float


def make_run(config: "SimulateObservationConfig", shown: Progress | None = None) -> MadeRun:
    """Write the packet files of a run, its truth and its description; all of them or nothing.

    Parameters
    ----------
    config
        Options of the stage.
    shown
        Is told about seconds of the run that are done.

    Raises
    ------
    UsageError
        For a run that cannot be, or an output that exists.
    AstriError
        When the disk is too small, or atmosphere, packet format or backend cannot be used.
    """
    started, clock = now(), time.perf_counter()
    options = json_ready(asdict(config))
    plan = plan_run(config, options)
    name = plan.description.name
    layout = plan.layout
    clocks = Clocks.drawn(
        config.clock, layout.tel_id, plan.duration_s, seed_of(config.seed, "clocks")
    )
    with (
        whole_folder(config.output, _is_ours, overwrite=config.overwrite) as folder,
        ExitStack() as stack,
    ):
        files = [
            stack.enter_context(
                PacketFile(folder / name.raw(tel_id), plan.descriptor, tel_id, config.run)
            )
            for tel_id in layout.tel_id.tolist()
        ]
        sky = SkyEvents(config, plan)
        between = Interleaved(config.interleaved, plan, sky.camera)
        readout = Readout(plan, clocks, between, files, config.camera.dead_time_us)
        showers: list[Showers] = []
        parts = list(blocks(plan.duration_s, config.slice_s))
        seconds_done = 0
        with WriteBehind(readout.add, depth=1) as write:
            for block in parts:
                triggers, behind = sky.make(block)
                flashes = between.triggers(
                    sky.calibration_engine(block), block.start_s, block.stop_s
                )
                new = [some for some in (triggers, flashes) if some is not None]
                write(new, block.stop_s, block is parts[-1])
                if behind is not None:
                    showers.append(behind)
                if shown is not None:
                    shown.advance(int(block.stop_s) - seconds_done)
                    seconds_done = int(block.stop_s)
        stack.close()
        record = provenance("simulate-observation", options, plan.inputs, started)
        truth = folder / name.truth()
        write_truth(
            truth,
            run_cards(plan.description, None, "TRUTH")
            | {"START": (float(plan.start_s), "[s] zero of the times here, UTC since 2020")}
            | step_cards(record),
            readout.truth(),
            joined(showers) if showers else None,
            clocks,
        )
        described = plan.described(tuple(file.described() for file in files))
        description = write_description(folder, described)
    output = Path(config.output)
    return MadeRun(
        output=output,
        description=output / description.name,
        truth=output / truth.name,
        backend=sky.backend,
        duration_s=plan.duration_s,
        n_telescopes=layout.n_telescopes,
        n_thrown=sky.n_thrown,
        n_showers=sum(len(part.event) for part in showers),
        n_sci=readout.n_sci,
        n_cal=readout.n_cal,
        n_lost=readout.n_lost,
        n_bytes=sum(file.n_bytes for file in files),
        seconds=time.perf_counter() - clock,
    )


def _is_ours(name: str) -> bool:
    return name.endswith(ENDINGS) and re.match(PATTERN, name) is not None
