"""The stage `train`: stores of simulated gammas and other particles to one file of models."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astri_gpu.errors import AstriError
from astri_gpu.stages.units import counted, find_inputs

if TYPE_CHECKING:
    from astri_gpu.config import TrainConfig

__all__ = ["Summary", "run"]


@dataclass(frozen=True)
class Summary:
    """What was trained; `scores` are those of the file's description (out of sample)."""

    output: Path
    n_stores: int
    n_images: int
    n_events: int
    n_forests: int
    seconds: float
    backend: str
    scores: dict[str, Any]

    @property
    def line(self) -> str:
        """Return stores, images, events, forests, AUC and seconds in one line."""
        area = self.scores["events"]["gammaness"]["all_events"]
        return (
            f"train: {counted(self.n_forests, 'forest')} from {counted(self.n_images, 'image')} "
            f"and {counted(self.n_events, 'event')} of {counted(self.n_stores, 'store')}, "
            f"AUC {area:.3f}, in {self.seconds:.1f} s: {self.output} (backend {self.backend})"
        )


def run(config: "TrainConfig") -> Summary:
    """Train models on all inputs and write them into one file.

    Raises
    ------
    UsageError
        When the output exists and may not be replaced, for features or levellings that cannot be
        used, or when no file matches the input.
    AstriError
        When an input is no DL2a store of simulated events, a class is missing, or too few images
        are left of one.
    """
    from astri_gpu.backend import make_backend
    from astri_gpu.output_file import whole_file
    from astri_gpu.provenance import now, provenance
    from astri_gpu.reconstruction.model_file import write_models
    from astri_gpu.reconstruction.training import train
    from astri_gpu.store import fingerprint

    started, clock = now(), time.perf_counter()
    output = Path(config.output)
    paths = find_inputs(config.inputs())
    with whole_file(output, overwrite=config.overwrite) as unfinished:
        before = [fingerprint(path) for path in paths]
        backend = make_backend(config.backend.name, config.backend.threads, config.backend.devices)
        models = train(paths, config, backend)
        record = provenance("train", asdict(config), paths, started)
        for entry, checksum in zip(record["inputs"], before, strict=True):
            if entry["checksum"] != checksum:
                raise AstriError(
                    f"The store {entry['path']} has changed while it was read: run again."
                )
        models.meta["provenance"] = record | {"backend": backend.name}
        write_models(unfinished, models)
    counts = models.meta["counts"].values()
    return Summary(
        output=output,
        n_stores=len(paths),
        n_images=sum(item["images"] for item in counts),
        n_events=sum(item["events"] for item in counts),
        n_forests=models.meta["n_forests"],
        seconds=time.perf_counter() - clock,
        backend=backend.name,
        scores=models.meta["scores"],
    )
