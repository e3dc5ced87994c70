"""Layout of camera packets, read from a YAML descriptor.

The descriptor names the fields; where a byte lies follows from their order alone, so another packet
format is another file and no code. See ``astri_gpu_v1.yaml``, which explains its keys.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from astri_gpu.dl0.names import CODES
from astri_gpu.errors import AstriError
from astri_gpu.packets.checksum import CHECKSUMS

__all__ = ["BITS", "HEADER_BYTES", "Descriptor", "Field", "PacketType", "read_descriptor"]

BITS = "bits"
CODES_OF_NUMBERS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
HEADER = (("packet_id", ">u2"), ("sequence", ">u2"), ("length", ">u2"))
HEADER_BYTES = 6
MAX_BYTES = HEADER_BYTES + 65536  # the length in the header has 16 bits and is one less
MAX_APID = 0x7FE  # 0x7FF is the one of idle packets
TELEMETRY = 0x0800  # version 0, type 0, secondary header flag 1
KINDS = tuple(kind for kind in CODES if kind not in ("SEB0", "CAL1"))
NAME = re.compile(r"[a-z][a-z0-9_]*")
FITS_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
TOP_KEYS = {
    "name",
    "note",
    "camera",
    "dims",
    "checksum",
    "telescope",
    "run",
    "counter",
    "seconds",
    "nanoseconds",
    "common",
    "types",
}
FIELD_KEYS = {"name", "type", "shape", "unit", "fits", "description"}
TYPE_KEYS = {"apid", "description", "fields"}


@dataclass(frozen=True)
class Field:
    """A field of a packet."""

    name: str
    code: str
    """u1, u2, u4, u8, i1 ... i8, f4, f8, or "bits": one bit each, packed, the first one highest."""
    shape: tuple[int, ...] = ()
    unit: str = ""
    fits: str | None = None
    """Name of its column in FITS files; None for fields that the header tells."""
    description: str = ""

    @property
    def n_values(self) -> int:
        """Return how many values the field has."""
        return math.prod(self.shape)

    @property
    def stored(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype (big-endian) and shape of the field in a packet; bits are bytes there."""
        if self.code == BITS:
            return np.dtype("u1"), (-(-self.n_values // 8),)
        return np.dtype(self.code).newbyteorder(">"), self.shape

    @property
    def native(self) -> np.dtype[Any]:
        """Return the dtype of its values in memory: native byte order, bool for bits."""
        return np.dtype(bool) if self.code == BITS else np.dtype(self.code)


@dataclass(frozen=True)
class PacketType:
    """The packets of one type, all of one length."""

    kind: str
    """SCI, CAL, HK or VAR."""
    apid: int
    fields: tuple[Field, ...]
    """Common fields first, in the order of their bytes; without header and checksum."""
    description: str = ""
    checksum: str = "crc32"

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of a whole packet: header, fields, checksum; packed, big-endian."""
        check = CHECKSUMS[self.checksum]
        entries: list[Any] = [
            *HEADER,
            *((entry.name, *entry.stored) for entry in self.fields),
            ("checksum", f">u{check.n_bytes}"),
        ]
        return np.dtype(entries)

    @cached_property
    def n_bytes(self) -> int:
        """Return the length of a whole packet."""
        return int(self.dtype.itemsize)

    @property
    def packet_id(self) -> int:
        """Return the first two bytes of its packets: version, type, flag and APID."""
        return TELEMETRY | self.apid

    @property
    def length(self) -> int:
        """Return the number in the length field of its packets."""
        return self.n_bytes - HEADER_BYTES - 1

    def field(self, name: str) -> Field:
        """Return the field of a name (`KeyError` if there is none)."""
        for entry in self.fields:
            if entry.name == name:
                return entry
        raise KeyError(name)


@dataclass(frozen=True)
class Descriptor:
    """A packet format."""

    name: str
    types: Mapping[str, PacketType]
    """By kind, in the order of the descriptor."""
    telescope: str
    """Common field that names the telescope."""
    run: str
    """Common field that names the run."""
    counter: str
    """Common field that counts the packets of a file, of all types."""
    seconds: str
    nanoseconds: str
    """Common fields of the time."""
    camera: str = ""
    note: str = ""
    source: str = ""
    """Name or path it was read from: what the option `descriptor` takes."""


def read_descriptor(name_or_path: str | Path) -> Descriptor:
    """Return a packet format.

    Parameters
    ----------
    name_or_path
        Name of a format of this package, such as "astri_gpu_v1", or the path of a YAML file.

    Raises
    ------
    AstriError
        When there is no such format, or its file cannot be read or describes no packets; the
        sentence names file and key.
    """
    text, where = _text(str(name_or_path))
    import yaml

    try:
        contents = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AstriError(
            f"The packet descriptor {where} is not YAML ({' '.join(str(error).split())}): mend it."
        ) from error
    return _Parser(where).descriptor(contents, str(name_or_path))


def _text(name: str) -> tuple[str, str]:
    """Return the text of a descriptor and how to call it."""
    ours = files("astri_gpu.packets")
    if re.fullmatch(r"\w+", name) and (ours / f"{name}.yaml").is_file():
        return (ours / f"{name}.yaml").read_text(encoding="utf-8"), name
    path = Path(name)
    if not path.is_file():
        known = sorted(
            entry.name.removesuffix(".yaml")
            for entry in ours.iterdir()
            if entry.name.endswith(".yaml")
        )
        raise AstriError(
            f"There is no packet descriptor '{name}': give one of {', '.join(known)}, or the path "
            "of a YAML file like them."
        )
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise AstriError(
            f"The packet descriptor {path} cannot be read ({error}): give a YAML file."
        ) from error


class _Parser:
    """Turns the contents of a descriptor's file into a `Descriptor`, or says what is wrong."""

    def __init__(self, where: str) -> None:
        self._where = where

    def descriptor(self, contents: Any, source: str) -> Descriptor:
        top = self._mapping(contents, "the file", TOP_KEYS, {"name", "common", "types"})
        dims = self._dims(top.get("dims"))
        checksum = top.get("checksum", "crc32")
        if checksum not in CHECKSUMS:
            self._refuse(f"checksum is '{checksum}'", f"use one of {', '.join(CHECKSUMS)}")
        common = self._fields(top["common"], "common", dims)
        roles = {
            "telescope": "tel_id",
            "run": "run_id",
            "counter": "packet_number",
            "seconds": "time_s",
            "nanoseconds": "time_ns",
        }
        named: dict[str, str] = {key: str(top.get(key, roles[key])) for key in roles}
        plain = {each.name for each in common if each.shape == () and each.code[0] in "ui"}
        for key, name in named.items():
            if name not in plain:
                self._refuse(
                    f"{key} is '{name}', which is no common field with one whole number",
                    f"name one of {', '.join(sorted(plain)) or 'them'}",
                )
        types = self._types(top["types"], common, dims, checksum)
        return Descriptor(
            name=str(top["name"]),
            types=types,
            camera=str(top.get("camera", "")),
            note=str(top.get("note", "")),
            source=source,
            **named,
        )

    def _types(
        self,
        contents: Any,
        common: tuple[Field, ...],
        dims: Mapping[str, int],
        checksum: str,
    ) -> dict[str, PacketType]:
        types: dict[str, PacketType] = {}
        if not isinstance(contents, Mapping) or not contents:
            self._refuse("types holds nothing", f"give at least one of {', '.join(KINDS)}")
        for kind, entry in contents.items():
            place = f"types.{kind}"
            if kind not in KINDS:
                self._refuse(f"{place} is no kind of packet", f"use {', '.join(KINDS)}")
            entry = self._mapping(entry, place, TYPE_KEYS, {"apid", "fields"})
            apid = entry["apid"]
            if not _is_whole(apid) or not 0 <= apid <= MAX_APID:
                self._refuse(f"{place}.apid is {apid!r}", f"give a number from 0 to {MAX_APID}")
            if apid in (other.apid for other in types.values()):
                self._refuse(f"{place}.apid {apid:#x} is used twice", "give each type its own")
            fields = common + self._fields(entry["fields"], f"{place}.fields", dims)
            self._check_names(fields, place)
            packet_type = PacketType(
                kind, apid, fields, str(entry.get("description", "")), checksum
            )
            n_bytes = HEADER_BYTES + CHECKSUMS[checksum].n_bytes
            n_bytes += sum(each.stored[0].itemsize * math.prod(each.stored[1]) for each in fields)
            if n_bytes > MAX_BYTES:
                self._refuse(
                    f"packets of {place} have {n_bytes} bytes, more than the {MAX_BYTES} that the "
                    "header can tell",
                    "use fewer or smaller fields",
                )
            types[kind] = packet_type
        return types

    def _fields(self, contents: Any, place: str, dims: Mapping[str, int]) -> tuple[Field, ...]:
        if not isinstance(contents, Sequence) or isinstance(contents, str):
            self._refuse(f"{place} is no list of fields", "give a list")
        fields = []
        for number, entry in enumerate(contents):
            entry = self._mapping(entry, f"{place}[{number}]", FIELD_KEYS, {"name", "type"})
            name, code, here = entry["name"], entry["type"], f"{place}.{entry['name']}"
            if not isinstance(name, str) or not NAME.fullmatch(name):
                self._refuse(
                    f"{place}[{number}] has the name {name!r}", "use small letters, digits and _"
                )
            if code != BITS and code not in CODES_OF_NUMBERS:
                self._refuse(
                    f"{here} has the type {code!r}",
                    f"use one of {', '.join(CODES_OF_NUMBERS)}, {BITS}",
                )
            fits = entry.get("fits")
            if fits is not None and (not isinstance(fits, str) or not FITS_NAME.fullmatch(fits)):
                self._refuse(f"{here} has the FITS column {fits!r}", "use capitals, digits and _")
            shape = self._shape(entry.get("shape", []), here, dims)
            unit, text = str(entry.get("unit", "")), str(entry.get("description", ""))
            fields.append(Field(name, code, shape, unit, fits, text))
        return tuple(fields)

    def _shape(self, contents: Any, place: str, dims: Mapping[str, int]) -> tuple[int, ...]:
        if not isinstance(contents, Sequence) or isinstance(contents, str):
            self._refuse(f"{place} has the shape {contents!r}", "give a list")
        shape = []
        for size in contents:
            length: Any = dims.get(size) if isinstance(size, str) else size
            if not _is_whole(length) or not 1 <= length <= MAX_BYTES * 8:
                self._refuse(
                    f"{place} has the size {size!r} in its shape",
                    f"use a whole number or one of dims ({', '.join(dims) or 'none given'})",
                )
            shape.append(length)
        return tuple(shape)

    def _dims(self, contents: Any) -> dict[str, int]:
        if contents is None:
            return {}
        if not isinstance(contents, Mapping):
            self._refuse("dims is no mapping", "write dims: {pixel: 2368}")
        return {str(name): size for name, size in contents.items()}

    def _check_names(self, fields: tuple[Field, ...], place: str) -> None:
        seen = {name for name, _ in HEADER} | {"checksum"}
        columns = {"SEQCNT"}  # the count in the packet header has this column in FITS files
        for entry in fields:
            if entry.name in seen or entry.fits in columns:
                self._refuse(
                    f"{place} has two fields or columns '{entry.name}' ({entry.fits})",
                    "give every field its own name",
                )
            seen.add(entry.name)
            if entry.fits is not None:
                columns.add(entry.fits)

    def _mapping(
        self, contents: Any, place: str, known: set[str], needed: set[str]
    ) -> Mapping[str, Any]:
        if not isinstance(contents, Mapping):
            self._refuse(f"{place} is no mapping", "write keys and values")
        keys = set(map(str, contents))
        if wrong := sorted(needed - keys):
            self._refuse(f"{place} lacks {', '.join(wrong)}", "add it")
        if wrong := sorted(keys - known):
            self._refuse(
                f"{place} has the unknown key {', '.join(wrong)}",
                f"use {', '.join(sorted(known))}",
            )
        result: Mapping[str, Any] = contents
        return result

    def _refuse(self, what: str, remedy: str) -> None:
        raise AstriError(f"In the packet descriptor {self._where} {what}: {remedy}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
