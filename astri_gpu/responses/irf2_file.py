"""IRF2 files: the responses of an event class to all simulated pointings, in fine bins (FITS).

HDUs 1 to 5 are A-SciSoft's (CLASS CUTS, EFFECTIVE AREA, POINT SPREAD FUNCTION, ENERGY DISPERSION,
BACKGROUND; names, columns and order after Lombardi 2016), one row each, in single precision. All
others are ours: the background by offset, statistical errors, and SUMS, the sums of events from
which everything else follows. `read_irf2` reads the sums only: regrouping and averaging are exact.
"""

import gzip
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.config_response import BinningConfig
from astri_gpu.errors import AstriError
from astri_gpu.output_file import whole_file
from astri_gpu.responses.counts import Counts, Irf2
from astri_gpu.responses.edges import fine_edges
from astri_gpu.responses.irf2_tables import SUMS, Table, class_cuts, responses, sums_columns
from astri_gpu.selection.cuts import Cuts
from astri_gpu.store_disk import json_ready

__all__ = ["Irf2", "read_irf2", "write_irf2"]

HDU = "SUMS"
VERSION = 1
GZIP = b"\x1f\x8b"
FORMATS = {np.dtype("f4"): "E", np.dtype("f8"): "D", np.dtype("i8"): "K"}


def write_irf2(
    path: str | Path,
    counts: Sequence[Counts],
    binning: BinningConfig,
    cuts: Cuts,
    *,
    meta: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the responses of one event class.

    Parameters
    ----------
    path
        Of the file; .fits.gz is compressed.
    counts
        One per pointing, in the fine bins of `binning`.
    binning
        Fine bins and how many make a coarse one.
    cuts
        Of the class.
    meta
        What else the file says of its origin, such as `provenance`.
    overwrite
        Replace a file that is there already.

    Raises
    ------
    UsageError
        When the file exists and may not be replaced.
    AstriError
        When counts differ in class, bins, kind of gammas or way of selection, two of them are in
        one bin of zenith and azimuth angle, or the file cannot be written.
    """
    from astropy.io import fits

    counts = sorted(counts, key=lambda item: (item.zenith_deg, item.azimuth_deg))
    _check_alike(counts, cuts)
    meta = dict(meta or {})
    primary = fits.PrimaryHDU()
    tables = [class_cuts(cuts), *responses(counts, binning)]
    hdus = [primary, *(_hdu(table) for table in tables), _sums(counts, binning, meta)]
    for hdu in hdus:
        for key, (value, text) in _keywords(counts, cuts, meta).items():
            hdu.header[key] = (value, text)
    _describe(primary.header, meta, binning)
    with whole_file(path, overwrite=overwrite) as unfinished:
        fits.HDUList(hdus).writeto(unfinished, checksum=True)


def read_irf2(path: str | Path) -> Irf2:
    """Return the sums in a file of `write_irf2`.

    Raises
    ------
    AstriError
        When the file is missing, damaged, or not of this package.
    """
    path = Path(path)
    with _readable(path) as hdus:
        if HDU not in hdus and "IRF2VERS" in hdus[0].header:
            raise AstriError(
                f"{path} is cut off (its table {HDU} is missing): run `astri-gpu irf` again."
            )
        if HDU not in hdus or "IRF2VERS" not in hdus[HDU].header:
            raise AstriError(
                f"{path} is no response file of this package (it has no table {HDU}): give one "
                "that `astri-gpu irf` wrote (.irf2.fits.gz)."
            )
        header, rows = hdus[HDU].header, hdus[HDU].data
        if header["IRF2VERS"] != VERSION:
            raise AstriError(
                f"{path} has version {header['IRF2VERS']} of the format of responses, this package "
                f"reads {VERSION}: run `astri-gpu irf` again."
            )
        try:
            return _irf2(header, rows)
        except (KeyError, ValueError, TypeError) as error:
            raise AstriError(f"{path} is damaged ({error}): run `astri-gpu irf` again.") from error


def _irf2(header: Any, rows: Any) -> Irf2:
    texts = [json.loads(row) for row in rows["META"]]
    if not texts:
        raise ValueError("it has no pointing")
    binning = BinningConfig(**texts[0]["binning"])
    edges = fine_edges(binning)
    counts = []
    for number, text in enumerate(texts):
        sums = {
            name: np.asarray(rows[column][number], dtype=np.float64)
            for name, (column, _) in SUMS.items()
        }
        wanted = (len(edges.true_energy) - 1, len(edges.migra) - 1, len(edges.offset) - 1)
        if sums["migration"].shape != wanted:
            raise ValueError(f"its table {HDU} has other bins than it says")
        counts.append(
            Counts(
                event_class=str(header["EV_CLASS"]),
                zenith_deg=float(rows["ZD_PNT"][number]),
                azimuth_deg=float(rows["AZ_PNT"][number]),
                edges=edges,
                point_like=bool(header["POINTLIK"]),
                area_m2=float(rows["AREA"][number]),
                valid_tev=(float(header["LO_THRES"]), float(header["HI_THRES"])),
                meta=text["counts"],
                **sums,
            )
        )
    return Irf2(tuple(counts), binning, texts[0]["file"])


def _check_alike(counts: Sequence[Counts], cuts: Cuts) -> None:
    """Refuse counts that cannot be in one file."""
    if not counts:
        raise AstriError("There are no pointings to write responses of: give stores of gammas.")
    first = counts[0]
    for item in counts:
        if item.event_class != cuts.event_class:
            raise AstriError(
                f"The counts are of class {item.event_class} and the cuts of class "
                f"{cuts.event_class}: a file holds one class."
            )
        for what, one, two in (
            ("gammas", first.meta.get("gammas"), item.meta.get("gammas")),
            ("offset of gammas", first.meta.get("gamma_offset"), item.meta.get("gamma_offset")),
            ("forests", first.meta.get("models"), item.meta.get("models")),
            ("point-like", first.point_like, item.point_like),
            ("bins of energy", len(first.edges.true_energy), len(item.edges.true_energy)),
        ):
            if one != two:
                raise AstriError(
                    f"The pointings at zenith {first.zenith_deg:.1f} deg and "
                    f"{item.zenith_deg:.1f} deg differ in {what} ({one} and {two}): make one "
                    "response file of each."
                )


def _keywords(
    counts: Sequence[Counts], cuts: Cuts, meta: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    from astri_gpu.responses.gadf_write import gadf_keywords

    first = counts[0]
    found = gadf_keywords(first.event_class, {**first.meta, **meta})
    found |= {
        "HDUCLAS1": ("RESPONSE", ""),
        "LO_THRES": (first.valid_tev[0], "[TeV] reconstructed energies below: no cuts"),
        "HI_THRES": (first.valid_tev[1], "[TeV] reconstructed energies above: no cuts"),
        "POINTLIK": (first.point_like, "gammas are inside the theta cut"),
        "FILTER": (cuts.filter, "condition before all cuts"),
    }
    for key, (value, text) in found.items():
        if isinstance(value, str):
            found[key] = (value.encode("ascii", "replace").decode(), text)
    return found


def _describe(header: Any, meta: Mapping[str, Any], binning: BinningConfig) -> None:
    from astri_gpu.lineage.cards import step_cards

    header["IRF2VERS"] = (VERSION, "version of this format")
    header["COMMENT"] = "IRF2: responses in fine bins against zenith and azimuth angle."
    header["COMMENT"] = "HDUs 1 to 5 are laid out as in A-SciSoft; all others are of astri_gpu."
    header["COMMENT"] = "Axes ZD and AZ hold the bins of A-SciSoft's grid that were simulated."
    header["COMMENT"] = "binning: " + json.dumps(asdict(binning))
    for name, card in step_cards(meta.get("provenance")).items():
        header[name] = card


def _hdu(table: Table) -> Any:
    """Return a table as an HDU with one row."""
    from astropy.io import fits

    columns = []
    for name, unit, low, high in table.axes:
        for end, part in (("_LO", low), ("_HI", high)):
            columns.append(
                fits.Column(name + end, f"{len(part)}D", unit=unit or None, array=part[None])
            )
    shape = tuple(len(low) for _, _, low, _ in table.axes)
    for name, unit, values in table.columns:
        # FITS counts dimensions from the fastest: the first axis is the last of the array.
        row = np.ascontiguousarray(values.T)[None]
        columns.append(
            fits.Column(
                name,
                f"{row.size}{FORMATS[row.dtype]}",
                unit=unit or None,
                dim="(" + ",".join(map(str, shape)) + ")" if len(shape) > 1 else None,
                array=row,
            )
        )
    hdu = fits.BinTableHDU.from_columns(columns, name=table.name)
    hdu.header["HDUCLAS4"] = table.kind
    order = "(" + ",".join(f"{name}_LO:{name}_HI" for name, *_ in table.axes) + ")"
    for number in range(2 * len(shape) + 1, len(columns) + 1):
        hdu.header[f"CREF{number}"] = order
    return hdu


def _sums(counts: Sequence[Counts], binning: BinningConfig, meta: Mapping[str, Any]) -> Any:
    """Return the table of sums, one row per pointing, in double precision."""
    from astropy.io import fits

    extra = {"binning": asdict(binning), "file": json_ready(dict(meta))}
    described = sums_columns(counts, extra)
    columns = []
    for name, _, values in described:
        if values.dtype.kind == "S":
            columns.append(fits.Column(name, f"{values.dtype.itemsize}A", array=values))
            continue
        size, shape = int(np.prod(values.shape[1:])), values.shape[1:]
        dim = "(" + ",".join(map(str, shape[::-1])) + ")" if len(shape) > 1 else None
        columns.append(fits.Column(name, f"{size}D", dim=dim, array=values))
    hdu = fits.BinTableHDU.from_columns(columns, name=HDU)
    hdu.header["IRF2VERS"] = (VERSION, "version of this format")
    for number, (_, text, _) in enumerate(described, start=1):
        hdu.header.comments[f"TTYPE{number}"] = text
    return hdu


@contextmanager
def _readable(path: Path) -> Iterator[Any]:
    """Open a FITS file whose checksums are right; one sentence for everything else."""
    from astropy.io import fits

    if not path.is_file():
        raise AstriError(f"There is no response file {path}: check the name.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # From memory, as a file would stay open where its checksum is wrong.
            content = path.read_bytes()
            if content.startswith(GZIP):
                content = gzip.decompress(content)
            with fits.open(io.BytesIO(content), checksum=True, memmap=False) as hdus:
                if HDU in hdus:
                    hdus[HDU].data  # noqa: B018 - read now, while warnings are errors
                yield hdus
    except AstriError:
        raise
    except Exception as error:  # astropy raises whatever it likes on damaged bytes
        reason = " ".join(str(error).split())
        raise AstriError(
            f"{path} cannot be read as a response file ({reason}): it is damaged or of another "
            "kind; give one that `astri-gpu irf` wrote."
        ) from error
