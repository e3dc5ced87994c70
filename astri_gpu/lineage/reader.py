"""The last step of a product: who made it, when, with which options, from which inputs.

Products keep the record of `astri_gpu.provenance` where their form has a place for it: stores as an
attribute, FITS files as keywords (`lineage.cards`), models in their description, ctapipe files as
an attribute of HDF5. Pictures, tables and pages have no such place; the JSON file of their folder
has the record of them all.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astri_gpu.dl0.names import DESCRIPTION_ENDING, RAW_ENDING, parse_name
from astri_gpu.errors import AstriError
from astri_gpu.lineage.cards import product_id, record_of_header

__all__ = ["Input", "Step", "last_step", "options_changed"]

FITS_ENDINGS = (".fits", ".fits.gz", ".fit")
RUN_RECORD = "run.json"
HOUSEKEEPING = {"input", "output", "overwrite", "progress", "debug"}
"""Options that say where and how, not what."""


@dataclass(frozen=True)
class Input:
    """What a step has read."""

    path: str
    """As the step was given it."""
    checksum: str


@dataclass(frozen=True)
class Step:
    """One call of a stage."""

    step_id: str
    stage: str
    software: str
    version: str
    started: str | None
    stopped: str | None
    """UTC."""
    inputs: tuple[Input, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, Any] = field(default_factory=dict)
    """Versions, that of Python with them."""
    place: str = ""
    """Where the record was, in words."""

    @property
    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults."""
        return options_changed(self.stage, self.config)


def options_changed(stage: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a recorded configuration that differ from the defaults.

    Parameters
    ----------
    stage
        Of which they are; of an unknown one none is known to differ.
    config
        Sections nested.
    """
    from astri_gpu.config import STAGES
    from astri_gpu.options import specs
    from astri_gpu.store_summary import changed_options

    if stage not in STAGES:
        return {}
    defaults = {
        spec.key: spec.default
        for spec in specs(STAGES[stage].config)
        if spec.key not in HOUSEKEEPING
    }
    return changed_options(config, defaults)


def last_step(path: str | Path) -> Step | None:
    """Return the step that made a product; None if nothing says so.

    Parameters
    ----------
    path
        Store, FITS file, file of models, ctapipe file, a folder with a record, the folder of
        `astri-gpu run` (its last product counts), or any file in a folder with a record.

    Raises
    ------
    AstriError
        When there is no such product, or its record cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = _of_folder(path)
        elif path.is_file():
            found = _of_file(path) or _of_companions(path) or _of_neighbours(path)
        else:
            raise AstriError(f"There is no product {path}: check the name.")
        return None if found is None else _step(*found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise AstriError(
            f"The provenance of {path} cannot be read ({' '.join(str(error).split())}): the "
            "product is damaged, or not of this package."
        ) from error


Found = tuple[Mapping[str, Any], str]


def _step(record: Mapping[str, Any], place: str) -> Step:
    libraries = dict(record.get("libraries") or {})
    if "python" in record:
        libraries = {"python": record["python"], **libraries}
    return Step(
        step_id=product_id(record),
        stage=str(record["stage"]),
        software=str(record.get("software", "")),
        version=str(record.get("version", "")),
        started=record.get("started"),
        stopped=record.get("stopped"),
        inputs=tuple(
            Input(str(entry["path"]), str(entry["checksum"]))
            for entry in record.get("inputs") or ()
        ),
        config=dict(record.get("config") or {}),
        libraries=libraries,
        place=place,
    )


def _of_folder(path: Path) -> Found | None:
    if (path / "zarr.json").is_file():
        from astri_gpu.stages.finished import stored_provenance

        record = stored_provenance(path)
        return (record, "attribute of the store") if record else None
    return _of_record(path) or _of_run(path)


def _of_record(folder: Path) -> Found | None:
    """Return the record of a folder: of the JSON files in it the one with the most inputs."""
    found = [record for path in sorted(folder.glob("*.json")) if (record := _of_json(path))]
    return max(found, key=lambda entry: len(entry[0].get("inputs") or ()), default=None)


def _of_neighbours(path: Path) -> Found | None:
    """Return the record of the folder of a file, unless it names the file as an input."""
    found = _of_record(path.resolve().parent)
    names = [Path(entry["path"]).name for entry in found[0].get("inputs") or ()] if found else []
    return None if path.name in names else found


def _of_json(path: Path) -> Found | None:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # whoever put it there, it is no record
    record = contents.get("provenance") if isinstance(contents, Mapping) else None
    return (record, path.name) if isinstance(record, Mapping) and "stage" in record else None


def _of_run(folder: Path) -> Found | None:
    """Return the record of the last product in the folder of a chain."""
    if not (folder / RUN_RECORD).is_file():
        return None
    steps = json.loads((folder / RUN_RECORD).read_text(encoding="utf-8"))["steps"]
    for entry in reversed(steps):
        for name in entry["outputs"]:
            product = folder / name
            found = _of_folder(product) if product.is_dir() else None
            if found := found or (_of_file(product) if product.is_file() else None):
                return found[0], f"{name}: {found[1]}"
    return None


def _of_file(path: Path) -> Found | None:
    """Return the record that a file holds itself."""
    name = path.name.lower()
    if name.endswith(FITS_ENDINGS):
        record = record_of_header(_primary_header(path))
        return (record, "keywords PROV...") if record else None
    if name.endswith(".skops"):
        from astri_gpu.reconstruction.model_file import describe_models

        record = describe_models(path).get("provenance")
        return (record, "description of the models") if record else None
    if name.endswith((".h5", ".hdf5")):
        from astri_gpu.io.ctapipe_export_file import recorded_provenance

        try:
            return recorded_provenance(path), "attribute of HDF5"
        except AstriError:
            return None
    return _of_json(path) if name.endswith(".json") else None


def _of_companions(path: Path) -> Found | None:
    """Return the record of a FITS file that was made with a file beside it.

    Such are pictures (`seb0_offsets.png`), and the packets of a simulated run, whose truth file
    says who made them.
    """
    if path.name.endswith((RAW_ENDING, DESCRIPTION_ENDING)):
        try:
            truth = path.with_name(parse_name(path).truth())
        except AstriError:
            return None  # named in another way, so nothing is known of it
        return _of_file(truth) if truth.is_file() else None
    for other in sorted(path.parent.glob("*.fits")):
        if path.name.startswith(f"{other.stem}_") and path.suffix == ".png":
            return _of_file(other)
    return None


def _primary_header(path: Path) -> Any:
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tables that are cut off; the header is all we need
        with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
            return hdus[0].header
