"""A chain as a W3C PROV document, written by the package `prov` as PROV-JSON, PROV-N or PROV-XML.

Three layers, as provenance of observatories is kept: the *last step* is in the header of every
product (`lineage.cards`); what *users* need (event class, models, options of the analysis) is in
the products' own keywords and records; the document is the *full* provenance, back to the raw
files.

Steps are activities, files and stores entities, the software an agent. Terms of IVOA's Provenance
data model that W3C lacks are of our own namespace: every stage is an ``ActivityDescription``, every
option that differs from its default a ``Parameter`` that the activity used in the role
"configuration" (``WasConfiguredBy``); all options are in the attribute ``options`` of the activity.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.lineage.chain import Chain, Product
from astri_gpu.lineage.reader import Step
from astri_gpu.output_file import whole_file

__all__ = ["FORMATS", "prov_document", "write_document"]

FORMATS = {".json": "json", ".provn": "provn", ".xml": "xml"}
"""Ending of the file: form of W3C PROV."""
NAMESPACE = "urn:astri-gpu:provenance:"
IDENTIFIER_LENGTH = 16  # digits of a checksum
REFERENCE = "https://www.ivoa.net/documents/ProvenanceDM/"


def write_document(path: str | Path, chain: Chain, *, overwrite: bool = False) -> None:
    """Write a chain as a W3C PROV document, whole or not at all.

    Parameters
    ----------
    path
        The ending says the form: .json, .provn, .xml.
    chain
        Of `lineage.chain.follow`.
    overwrite
        Replace an existing file.

    Raises
    ------
    UsageError
        For another ending, and when the file exists and may not be replaced.
    AstriError
        When lxml, which XML needs, is not installed, or the file cannot be written.
    """
    path = Path(path)
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"The output {path} has no ending of a form of W3C PROV: choose one of "
            f"{', '.join(FORMATS)}."
        )
    document = prov_document(chain)
    from prov.serializers import DoNotExist

    try:
        options = {"indent": 1} if form == "json" else {}
        text = document.serialize(format=form, **options)
    except DoNotExist as error:
        raise AstriError(
            f"{path} needs lxml, which is not installed: pip install lxml, or choose .json or "
            ".provn."
        ) from error
    with whole_file(path, overwrite=overwrite) as unfinished:
        unfinished.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def prov_document(chain: Chain) -> Any:
    """Return a chain as a `prov.model.ProvDocument`."""
    from prov.model import ProvDocument

    document = ProvDocument()
    ours = document.add_namespace("astri", NAMESPACE)
    for product in chain.products.values():
        document.entity(_entity_id(ours, product), _entity_attributes(ours, product))
    agents: dict[str, Any] = {}
    for step in chain.steps.values():
        software = f"{step.software} {step.version}".strip() or "unknown"
        if software not in agents:
            agents[software] = document.agent(
                ours[f"agent-{software.replace(' ', '-')}"],
                {"prov:type": document.valid_qualified_name("prov:SoftwareAgent")}
                | {"prov:label": software},
            )
        _add_step(document, ours, chain, step, agents[software])
    return document


def _add_step(document: Any, ours: Any, chain: Chain, step: Step, agent: Any) -> None:
    """Add an activity with its description, its parameters and its inputs and outputs."""
    activity = document.activity(
        ours[step.step_id],
        _time(step.started),
        _time(step.stopped),
        {
            "prov:label": step.stage,
            ours["options"]: json.dumps(step.config, sort_keys=True),
            ours["libraries"]: json.dumps(step.libraries, sort_keys=True),
            ours["recordedIn"]: step.place,
        },
    )
    description = document.entity(
        ours[f"description-{step.stage}-{step.version}"],
        {
            "prov:type": ours["ActivityDescription"],
            ours["name"]: step.stage,
            ours["version"]: step.version,
            ours["docurl"]: REFERENCE,
        },
    )
    document.used(activity, description, None, None, {"prov:role": "description"})
    for name, value in step.changed.items():
        parameter = document.entity(
            ours[f"{step.step_id}-{name}"],
            {"prov:type": ours["Parameter"], ours["name"]: name, "prov:value": _plain(value)},
        )
        document.used(activity, parameter, None, None, {"prov:role": "configuration"})
    document.wasAssociatedWith(activity, agent)
    made = [found for found in chain.products.values() if found.step_id == step.step_id]
    inputs = list({found.key: found for found in chain.inputs(step)}.values())
    for found in inputs:
        document.used(activity, _entity_id(ours, found), _time(step.started), None)
    for found in made:
        document.wasGeneratedBy(_entity_id(ours, found), activity, _time(step.stopped))
        document.wasAttributedTo(_entity_id(ours, found), agent)
        for origin in inputs:
            document.wasDerivedFrom(_entity_id(ours, found), _entity_id(ours, origin), activity)


def _entity_id(ours: Any, product: Product) -> Any:
    """Return the identifier of a product: its checksum, as far as it takes to tell files apart."""
    if product.checksum is None:
        return ours["product"]
    return ours["product-" + product.checksum.rpartition(":")[2][:IDENTIFIER_LENGTH]]


def _entity_attributes(ours: Any, product: Product) -> dict[Any, Any]:
    attributes = {
        "prov:label": Path(product.name).name,
        "prov:type": ours["DatasetEntity"],
        ours["recordedPath"]: product.name,
        ours["checksum"]: product.checksum,
        ours["state"]: product.state,
        ours["problem"]: product.problem,
    }
    if product.path is not None:
        attributes["prov:location"] = str(product.path)
    return {name: value for name, value in attributes.items() if value is not None}


def _time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None  # a record of somebody else's making


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)
