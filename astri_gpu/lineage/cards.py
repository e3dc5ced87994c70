"""The last step of a product as keywords of a FITS header, and back.

=========== =======================================================================================
PROVID      identifier of the doing: all files that one call of a stage wrote have the same
PROVSTEP    stage, PROVSOFT and PROVVER its software and version
PROVBEG     UTC times at which it began, and PROVEND ended
NPROVIN     number of inputs
PROVINn     path of input n as the stage was given it, PROVCSn its checksum (`store.fingerprint`)
PROVMORE    further inputs, from the 100th, as JSON
PROVCFG     options as JSON, PROVENV versions of Python and the libraries as JSON
=========== =======================================================================================

Values are longer than a card, so they go on in CONTINUE cards. Writers and readers of FITS do not
agree on quotes, ampersands and blanks at the joints of such values: none of these occurs in ours.
Paths have them (and what is not ASCII) as %XX, JSON as its own escapes.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from astri_gpu.store_disk import json_ready

__all__ = ["Keywords", "product_id", "record_of_header", "step_cards"]

Keywords = dict[str, tuple[Any, str]]
"""name -> (value, comment)"""

N_INPUT_CARDS = 99  # keywords have eight characters
CARD_LENGTH = 64  # characters of a text and its comment
ENVIRONMENT = ("python", "libraries", "backend")  # of a record
INPUT_CARDS = (("path", "PROVIN"), ("checksum", "PROVCS"))
PLAIN = '!"#$()*+,-./:;<=>?@[\\]^_`{|}~'  # what paths keep besides letters and digits


def step_cards(record: Mapping[str, Any] | None) -> Keywords:
    """Return the keywords of a provenance record.

    Parameters
    ----------
    record
        As `astri_gpu.provenance.provenance` returns it; None or an empty one gives no keywords.

    Returns
    -------
    dict
        name -> (value, comment) for a primary header; strings may be longer than a card.
    """
    if not record:
        return {}
    record = json_ready(record)
    inputs = list(record.get("inputs") or ())
    cards: Keywords = {
        "PROVID": (product_id(record), "provenance: identifier of the last step"),
        "PROVSTEP": (_text(record.get("stage")), "provenance: stage"),
        "PROVSOFT": (_text(record.get("software")), "provenance: software"),
        "PROVVER": (_text(record.get("version")), "provenance: its version"),
        "PROVBEG": (_text(record.get("started")), "[UTC] provenance: begin of the step"),
        "PROVEND": (_text(record.get("stopped")), "[UTC] provenance: end of the step"),
        "NPROVIN": (len(inputs), "provenance: number of inputs"),
    }
    for number, entry in enumerate(inputs[:N_INPUT_CARDS], start=1):
        cards[f"PROVIN{number}"] = (_text(entry.get("path")), f"provenance: input {number}")
        cards[f"PROVCS{number}"] = (_text(entry.get("checksum")), "its checksum")
    if inputs[N_INPUT_CARDS:]:
        cards["PROVMORE"] = (_json(inputs[N_INPUT_CARDS:]), "provenance: further inputs")
    environment = {name: record[name] for name in ENVIRONMENT if name in record}
    cards["PROVCFG"] = (_json(record.get("config") or {}), "provenance: options")
    cards["PROVENV"] = (_json(environment), "provenance: versions")
    return {
        name: (value, "" if len(str(value)) + len(comment) > CARD_LENGTH else comment)
        for name, (value, comment) in cards.items()
        if value is not None
    }


def product_id(record: Mapping[str, Any]) -> str:
    """Return the identifier of a step: "stage-" and twelve digits that its whole record decides."""
    text = json.dumps(json_ready(record), sort_keys=True)
    return f"{record.get('stage')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def record_of_header(header: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the provenance record in a primary header; None if it has none.

    Parameters
    ----------
    header
        Of astropy or fitsio, or a mapping of keywords to values. Files of version 0.1.0 have the
        record as JSON in HISTORY cards, which is read too.

    Raises
    ------
    ValueError
        For keywords that are damaged.
    """
    if "PROVSTEP" not in header:
        return _of_history(header)
    record: dict[str, Any] = {"stage": _plain(header["PROVSTEP"])}
    for name, key in (
        ("software", "PROVSOFT"),
        ("version", "PROVVER"),
        ("started", "PROVBEG"),
        ("stopped", "PROVEND"),
    ):
        if key in header:
            record[name] = _plain(header[key])
    try:
        n_inputs = int(header["NPROVIN"])
        record["inputs"] = [
            {name: _plain(header[f"{key}{number}"]) for name, key in INPUT_CARDS}
            for number in range(1, min(n_inputs, N_INPUT_CARDS) + 1)
        ]
        if "PROVMORE" in header:
            record["inputs"] += json.loads(header["PROVMORE"])
        record["config"] = json.loads(header["PROVCFG"])
        record |= json.loads(header["PROVENV"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its keywords PROV... are damaged ({error})") from error
    if len(record["inputs"]) != n_inputs:
        raise ValueError(f"NPROVIN is {n_inputs}, but {len(record['inputs'])} inputs are named")
    return record


def _of_history(header: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of HISTORY cards, which had JSON in pieces of 70 characters."""
    if "HISTORY" not in header:
        return None
    lines = header["HISTORY"]
    # A blank at the end of a card is lost; all others are full.
    cards = [str(line).ljust(70) for line in ([lines] if isinstance(lines, str) else lines)]
    text = "".join(cards)
    start = text.find('{"provenance"')
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError as error:
        raise ValueError(f"its provenance (HISTORY) is damaged ({error})") from error
    return dict(found["provenance"])


def _text(value: Any) -> str | None:
    return None if value is None else quote(str(value), safe=PLAIN, errors="surrogateescape")


def _json(value: Any) -> str:
    """Return JSON that has blanks, quotes and ampersands as escapes, which only strings need."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    for sign in "'& ":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _plain(value: Any) -> str:
    return unquote(str(value), errors="surrogateescape")
