"""Files of cuts (FITS): ours in the HDU CLASS CUTS, and what ctapipe's tools need of them.

HDUs 1 to 5 are those of ctapipe's cut file, in its order (``ctapipe.irf.OptimizationResult``); it
knows no number of images and no event type per bin of energy, so a criterion on the smallest
number of images stands for the first and nothing for the second.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.errors import AstriError
from astri_gpu.io.ctapipe_model_dl2 import CLASSIFIER, ENERGY
from astri_gpu.lineage.cards import step_cards
from astri_gpu.output_file import whole_file
from astri_gpu.selection.cuts import Cuts
from astri_gpu.store_disk import json_ready

__all__ = ["fill_cut_file", "read_cuts", "stored_cuts_provenance", "write_cuts"]

HDU, META = "CLASS CUTS", "META"
VERSION = 1

BINS: dict[str, tuple[str, str, str, str]] = {
    "gammaness": ("GH_CUT", "f8", "", "least gammaness"),
    "theta_deg": ("THETA_CUT", "f8", "deg", "largest angle from the source"),
    "n_tels": ("MULTIP", "i8", "", "fewest images of an event"),
    "quality": ("QUALITY", "i8", "", "worst event type, 1 best to 4"),
    "gammaness_efficiency": ("GH_EFF", "f8", "", "share of gammas kept by GH_CUT"),
    "theta_efficiency": ("TH_EFF", "f8", "", "share of gammas inside THETA_CUT"),
    "flags": ("FLAGS", "i8", "", "1 few gammas, 2 few background, 4 none"),
}
"""Attribute of `Cuts`: column, type, unit, meaning."""

CURVE: dict[str, tuple[str, str, str]] = {
    "n_signal": ("N_SIG", "", "gammas in the exposure"),
    "n_background": ("N_BKG", "", "background in the on region"),
    "relative_sensitivity": ("REL_SENS", "", "of the flux of the gammas"),
    "sensitivity": ("SENS", "erg / (cm2 s)", "E2 flux detected, at the bin centre"),
    "n_signal_events": ("N_SIGSIM", "", "simulated gammas behind the cuts"),
    "n_background_events": ("N_BKGSIM", "", "simulated background in the ring"),
    "n_background_worth": ("W_BKGSIM", "", "events of equal weight of the same error"),
}
"""Key of `Cuts.curve`: column, unit, meaning."""


def write_cuts(path: str | Path, cuts: Cuts, *, overwrite: bool = False) -> None:
    """Write cuts into a new file.

    Parameters
    ----------
    path
        Of the file (.fits).
    cuts
        What is written; what `Cuts.meta` holds goes along as JSON.
    overwrite
        Replace a file that is there already.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When it cannot be written.
    """
    with whole_file(path, overwrite=overwrite) as unfinished:
        fill_cut_file(unfinished, cuts)


def fill_cut_file(path: Path, cuts: Cuts) -> None:
    """Write cuts into a file of `astri_gpu.output_file.whole_file`."""
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    for name, card in step_cards(cuts.meta.get("provenance")).items():
        primary.header[name] = card
    hdus = fits.HDUList([primary, *_exchanged(cuts), _class_cuts(cuts), _meta(cuts)])
    hdus.writeto(path, checksum=True)


def _class_cuts(cuts: Cuts) -> Any:
    from astropy.io import fits

    low, high = cuts.energy_edges[:-1], cuts.energy_edges[1:]
    columns = [("ENERG_LO", "f8", "TeV", "reconstructed energy, from", low)]
    columns.append(("ENERG_HI", "f8", "TeV", "reconstructed energy, to", high))
    for name, entry in BINS.items():
        columns.append((*entry, getattr(cuts, name)))
    for name, (column, unit, text) in CURVE.items():
        if name in cuts.curve:
            columns.append((column, "f8", unit, text, cuts.curve[name]))
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column(
                column, "D" if kind == "f8" else "K", unit=unit or None, array=np.asarray(values)
            )
            for column, kind, unit, _, values in columns
        ],
        name=HDU,
    )
    for number, (*_, text, _) in enumerate(columns, start=1):
        hdu.header.comments[f"TTYPE{number}"] = text
    for key, value, text in _keywords(cuts):
        if value is not None:
            hdu.header[key] = (value, text)
    if model := cuts.meta.get("simulation_model"):
        hdu.header["COMMENT"] = str(model)
    return hdu


def _keywords(cuts: Cuts) -> Iterator[tuple[str, Any, str]]:
    valid = cuts.valid_range_tev or (None, None)
    yield "CUTSVERS", VERSION, "version of this format"
    yield "EV_CLASS", cuts.event_class, "event class"
    yield "CUTMODE", cuts.mode, "sensitivity or efficiency"
    yield "EXPOSURE", cuts.exposure_h, "[h] that sensitivities are for"
    yield "GAMMAEFF", cuts.gamma_efficiency, "share of gammas kept"
    yield "FILTER", cuts.filter, "condition before all cuts"
    yield "VALIDLO", valid[0], "[TeV] cuts are valid from here"
    yield "VALIDHI", valid[1], "[TeV] cuts are valid to here"
    yield "ZENITH", cuts.meta.get("zenith_deg"), "[deg] of the pointing"
    yield "AZIMUTH", cuts.meta.get("azimuth_deg"), "[deg] of the pointing"
    yield "MODELS", cuts.meta.get("models"), "forests"
    yield "SIMMODEL", cuts.meta.get("simulation_model"), "program of the events"
    yield "CREATOR", "astri_gpu", ""


def _meta(cuts: Cuts) -> Any:
    from astropy.io import fits

    text = json.dumps(json_ready(cuts.meta), ensure_ascii=True).encode()
    column = fits.Column("JSON", f"{max(1, len(text))}A", array=np.array([text]))
    return fits.BinTableHDU.from_columns([column], name=META)


def _exchanged(cuts: Cuts) -> list[Any]:
    """Return the HDUs that ctapipe reads, by their places."""
    from astropy import units as u
    from astropy.io import fits
    from astropy.table import QTable, Table

    edges = cuts.energy_edges * u.TeV
    bins = {"low": edges[:-1], "center": (edges[:-1] + edges[1:]) / 2, "high": edges[1:]}
    least = int(cuts.n_tels[cuts.valid].min()) if cuts.valid.any() else 1
    images = ("images", f"{ENERGY}_telescopes.sum(axis=1) >= {least}")
    # ctapipe takes a row of blanks for no criterion at all.
    expressions = Table(
        rows=[images if least > 1 else (" ", " ")], names=["name", "cut_expr"], dtype=[str, str]
    )
    n_events = np.nan_to_num(cuts.curve.get("n_signal_events", np.zeros(len(edges) - 1)))
    gammaness = QTable({**bins, "n_events": n_events.astype(np.int64), "cut": cuts.gammaness})
    gammaness.meta["CLFNAME"] = CLASSIFIER
    theta = QTable({**bins, "n_events": n_events.astype(np.int64), "cut": cuts.theta_deg * u.deg})
    valid = cuts.valid_range_tev or (np.nan, np.nan)
    offsets = cuts.offsets_deg
    tables = {
        "QUALITY_CUTS_EXPR": expressions,
        "GH_CUTS": gammaness,
        "VALID_ENERGY": QTable(
            {"energy_min": [valid[0]] * u.TeV, "energy_max": [valid[1]] * u.TeV}
        ),
        "VALID_OFFSET": QTable(
            {"offset_min": [offsets[0]] * u.deg, "offset_max": [offsets[1]] * u.deg}
        ),
        "RAD_MAX": theta,
    }
    return [fits.BinTableHDU(table, name=name) for name, table in tables.items()]


def read_cuts(path: str | Path) -> Cuts:
    """Return the cuts in a file of `write_cuts`.

    Raises
    ------
    AstriError
        When the file is missing, damaged, or not of this package.
    """
    path = Path(path)
    with _readable(path) as hdus:
        if HDU not in hdus or META not in hdus:
            raise AstriError(
                f"{path} is no file of cuts (it has no {HDU} table): give one that `astri-gpu "
                "optimize` wrote."
            )
        header, rows = hdus[HDU].header, hdus[HDU].data
        if header.get("CUTSVERS") != VERSION:
            raise AstriError(
                f"{path} has version {header.get('CUTSVERS')} of the format of cuts, this package "
                f"reads {VERSION}: run `astri-gpu optimize` again."
            )
        columns = {name: np.array(rows[name]) for name in rows.names}
        meta = json.loads(hdus[META].data["JSON"][0])
    try:
        return _cuts(header, columns, meta)
    except (KeyError, ValueError) as error:
        raise AstriError(f"{path} is damaged ({error}): run `astri-gpu optimize` again.") from error


def _cuts(header: Any, columns: dict[str, Any], meta: dict[str, Any]) -> Cuts:
    low = columns["ENERG_LO"].astype(np.float64)
    high = columns["ENERG_HI"].astype(np.float64)
    if not (len(low) and (low < high).all() and np.array_equal(low[1:], high[:-1])):
        raise ValueError("its bins of energy do not follow one another")
    exposure, efficiency = header.get("EXPOSURE"), header.get("GAMMAEFF")
    return Cuts(
        event_class=str(header["EV_CLASS"]),
        mode=str(header["CUTMODE"]),
        exposure_h=None if exposure is None else float(exposure),
        gamma_efficiency=None if efficiency is None else float(efficiency),
        filter=str(header["FILTER"]),
        energy_edges=np.append(low, high[-1]),
        **{
            name: columns[column].astype(np.float64 if kind == "f8" else np.int64)
            for name, (column, kind, _, _) in BINS.items()
        },
        curve={
            name: columns[column].astype(np.float64)
            for name, (column, _, _) in CURVE.items()
            if column in columns
        },
        meta=meta,
    )


def stored_cuts_provenance(path: Path) -> dict[str, Any]:
    """Return the provenance of a file of cuts (`AstriError` if it is none)."""
    return read_cuts(path).meta.get("provenance") or {}


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a FITS file whose checksums are right; one sentence for everything else."""
    from astropy.io import fits

    if not path.is_file():
        raise AstriError(f"There is no file of cuts {path}: check the name.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with path.open("rb") as file, fits.open(file, checksum=True) as hdus:
                for hdu in hdus:
                    hdu.data  # noqa: B018 - read now, while warnings are errors
                yield hdus
    except AstriError:
        raise
    except Exception as error:  # astropy raises whatever it likes on damaged bytes
        reason = " ".join(str(error).split())
        raise AstriError(
            f"{path} cannot be read as a file of cuts ({reason}): it is damaged or of another "
            "kind; give one that `astri-gpu optimize` wrote."
        ) from error
