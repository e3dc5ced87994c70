"""The stage `optimize`: stores of simulated gammas and background to the cuts of an event class.

It is the one that sweeps run. Events are read once per process and kept, so that a worker
evaluates many cut points on the same tables.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.stages.finished import is_finished
from astri_gpu.stages.units import counted

if TYPE_CHECKING:
    from astri_gpu.config import OptimizeConfig
    from astri_gpu.selection.cuts import Cuts
    from astri_gpu.selection.optimise import Prepared
    from astri_gpu.selection.sample import Sample

__all__ = ["Summary", "run"]

# Options that the cuts do not depend on.
IGNORED = ("cache", "score", "backend")
NEED = ("gamma", "background")

Stores = tuple[tuple[str, str], ...]  # path and checksum


@dataclass(frozen=True)
class Summary:
    """What was optimised.

    Attributes
    ----------
    output
        The file of cuts.
    cuts
        What is in it.
    score
        See `astri_gpu.selection.score.score`; always finite.
    seconds, loading_seconds
        Of the whole stage, and of reading events in it.
    n_run, n_reused
        Stages before this one by name: how often they ran, how often the cache had their output.
    before
        Whether an earlier run had made the file.
    """

    output: Path
    cuts: "Cuts"
    score: float
    seconds: float
    loading_seconds: float
    n_events: int
    backend: str
    n_run: Mapping[str, int] = field(default_factory=dict)
    n_reused: Mapping[str, int] = field(default_factory=dict)
    before: bool = False

    @property
    def table(self) -> dict[str, list[float]]:
        """Return energies (TeV), sensitivities and cuts per bin, as lists for the record."""
        cuts = self.cuts
        columns = {
            "energy_min_tev": cuts.energy_edges[:-1],
            "energy_max_tev": cuts.energy_edges[1:],
            "relative_sensitivity": cuts.curve["relative_sensitivity"],
            "sensitivity": cuts.curve["sensitivity"],
            "gammaness": cuts.gammaness,
            "theta_deg": cuts.theta_deg,
            "n_tels": cuts.n_tels,
            "quality": cuts.quality,
            "flags": cuts.flags,
        }
        return {name: np.asarray(values).tolist() for name, values in columns.items()}

    @property
    def line(self) -> str:
        """Return class, bins, best sensitivity and seconds in one line."""
        from astri_gpu.selection.score import counts_of_flags

        cuts, counts = self.cuts, counts_of_flags(self.cuts)
        n_bins = len(cuts.flags)
        n_cut = n_bins - counts.pop("without cut")
        flagged = "".join(f", {number} with {word}" for word, number in counts.items() if number)
        text = f"optimize: {cuts.event_class}, {n_cut} of {n_bins} bins have a cut{flagged}"
        sensitivity = np.where(cuts.flags == 0, cuts.curve["sensitivity"], np.nan)
        if np.isfinite(sensitivity).any():
            best = int(np.argmin(np.where(np.isfinite(sensitivity), sensitivity, np.inf)))
            low, high = cuts.energy_edges[best : best + 2]
            text += (
                f", best {sensitivity[best]:.2e} erg/(cm2 s) at {low:.3g} to {high:.3g} TeV in "
                f"{cuts.meta['options']['cuts']['exposure_h']:g} h"
            )
        if self.before:
            return f"{text}, score {self.score:.3f}: {self.output} was done before"
        upstream = [
            f"{word} {', '.join(f'{name} {number}' for name, number in stages.items())}"
            for word, stages in (("run", self.n_run), ("reused", self.n_reused))
            if stages
        ]
        also = f"; {', '.join(upstream)}" if upstream else ""
        return (
            f"{text}, score {self.score:.3f}, {counted(self.n_events, 'event')}, in "
            f"{self.seconds:.1f} s ({self.loading_seconds:.1f} s to read them; backend "
            f"{self.backend}{also}): {self.output}"
        )


def run(config: "OptimizeConfig") -> Summary:
    """Optimise the cuts of one class and write them into a file.

    Raises
    ------
    UsageError
        When the output exists and was made otherwise, or no file matches the input.
    AstriError
        When the stores do not fit together, or gammas or background are missing.
    """
    from astri_gpu.output_file import whole_file
    from astri_gpu.provenance import now
    from astri_gpu.selection.cut_file import fill_cut_file, read_cuts
    from astri_gpu.selection.score import score
    from astri_gpu.selection.spectra import spectrum

    started, clock = now(), time.perf_counter()
    output = Path(config.output)
    for kind, name in asdict(config.flux).items():
        spectrum(name, kind)  # refused now, not after all the reading
    paths, n_run, n_reused = _ready(config)
    if _is_finished(paths, output, config):
        cuts = read_cuts(output)
        seconds = time.perf_counter() - clock
        value = score(cuts, config.score)
        return Summary(output, cuts, value, seconds, 0.0, 0, "", n_run, n_reused, before=True)
    # The place is taken before the work.
    with whole_file(output, overwrite=config.overwrite) as unfinished:
        cuts, loading, n_events, backend = _optimised(paths, config, started)
        fill_cut_file(unfinished, cuts)
    return Summary(
        output=output,
        cuts=cuts,
        score=score(cuts, config.score),
        seconds=time.perf_counter() - clock,
        loading_seconds=loading,
        n_events=n_events,
        backend=backend,
        n_run=n_run,
        n_reused=n_reused,
    )


def _optimised(
    paths: Sequence[Path], config: "OptimizeConfig", started: str
) -> tuple["Cuts", float, int, str]:
    """Return cuts with their origin, seconds of reading, number of events, name of the backend."""
    from dataclasses import replace

    from astri_gpu.provenance import provenance
    from astri_gpu.selection.optimise import optimise
    from astri_gpu.store import fingerprint

    clock = time.perf_counter()
    stores = tuple((str(path), fingerprint(path)) for path in paths)
    events = _prepared(
        stores,
        config.cuts.filter,
        config.part,
        (config.cuts.offset_min_deg, config.cuts.offset_max_deg),
        tuple(asdict(config.flux).items()),
        config.progress,
    )
    loading = time.perf_counter() - clock
    backend = _backend(config.backend.name, config.backend.threads, config.backend.devices)
    cuts = optimise(events, config.cuts, config.flux, backend)
    record = provenance("optimize", asdict(config), paths, started)
    for entry, (_, checksum) in zip(record["inputs"], stores, strict=True):
        if entry["checksum"] != checksum:
            raise AstriError(f"The store {entry['path']} has changed while it was read: run again.")
    meta = {**cuts.meta, "provenance": record | {"backend": backend.name}}
    n_events = len(events.signal.weight) + len(events.background.weight)
    return replace(cuts, meta=meta), loading, n_events, backend.name


def _ready(config: "OptimizeConfig") -> tuple[list[Path], Mapping[str, int], Mapping[str, int]]:
    """Return DL2b stores for the inputs, and which stages were run or reused for them."""
    from astri_gpu.sweeps.upstream import ready_stores

    ready = ready_stores(config)
    return [Path(path) for path in ready.paths], ready.n_run, ready.n_reused


def _is_finished(paths: Sequence[Path], output: Path, config: "OptimizeConfig") -> bool:
    """Return whether an earlier run made the output from just these stores (see `is_finished`)."""
    from astri_gpu.selection.cut_file import stored_cuts_provenance

    if config.overwrite or not output.exists():
        return False
    try:
        record = stored_cuts_provenance(output)
    except AstriError as error:
        raise UsageError(
            f"The output {output} exists already, and not as an output of optimize ({error}): "
            "choose another output or set overwrite=true."
        ) from error
    entries = sorted(record.get("inputs", []), key=lambda entry: _place(Path(entry["path"])))
    ordered = sorted(paths, key=_place)
    names = [path.name for path in ordered]
    before = [Path(entry["path"]).name for entry in entries]
    if record.get("stage") != "optimize" or before != names:
        raise UsageError(
            f"The file {output} was made by {record.get('stage')} from "
            f"{', '.join(before) or 'something else'}, not by optimize from {', '.join(names)}: "
            "choose another output or set overwrite=true."
        )
    return all(
        is_finished(
            "optimize",
            path,
            output,
            config,
            functools.partial(_of_one_input, record, entry),
            IGNORED,
        )
        for path, entry in zip(ordered, entries, strict=True)
    )


def _of_one_input(
    record: Mapping[str, Any], entry: Mapping[str, Any], output: Path
) -> Mapping[str, Any]:
    """Return the provenance of an output as if it had one input."""
    return {**record, "inputs": [entry]}


def _place(path: Path) -> tuple[str, str]:
    return path.name, str(path)


# Two of each: those of the current job, and of the one before with which it may take turns.
@functools.lru_cache(maxsize=2)
def _loaded(stores: Stores, filter: str, part: str, progress: bool | None) -> "Sample":
    from astri_gpu.progress import progress as shown_progress
    from astri_gpu.selection.events import read_sample
    from astri_gpu.store import open_store

    paths = [path for path, _ in stores]
    total = sum(int(open_store(path).attrs.get("n_events") or 0) for path in paths)
    with shown_progress(total, "optimize", "events", progress) as shown:
        return read_sample(paths, filter=filter, part=part, need=NEED, shown=shown)


@functools.lru_cache(maxsize=2)
def _prepared(
    stores: Stores,
    filter: str,
    part: str,
    offsets: tuple[float, float],
    flux: tuple[tuple[str, Any], ...],
    progress: bool | None,
) -> "Prepared":
    from astri_gpu.config_response import CutsConfig, FluxConfig
    from astri_gpu.selection.optimise import prepare

    cuts = CutsConfig(offset_min_deg=offsets[0], offset_max_deg=offsets[1])
    return prepare(_loaded(stores, filter, part, progress), cuts, FluxConfig(**dict(flux)))


@functools.lru_cache(maxsize=1)
def _backend(name: str, threads: int, devices: int) -> Any:
    from astri_gpu.backend import make_backend

    return make_backend(name, threads, devices)
