"""The chain of a product: the steps and files behind it, back to files that nobody of us made."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from astri_gpu.errors import AstriError
from astri_gpu.lineage.reader import Input, Step, last_step
from astri_gpu.store import fingerprint

__all__ = ["CHANGED", "MISSING", "SAME", "UNCHECKED", "Chain", "Product", "follow"]

SAME, CHANGED, MISSING, UNCHECKED = "same", "changed", "missing", "unchecked"


@dataclass(frozen=True)
class Product:
    """A file or store of the chain."""

    key: str
    """Its checksum; of the product asked about without checksums, its path."""
    name: str
    """As the step that read it was given it."""
    path: Path | None
    """Where it is now; None if it was not found."""
    checksum: str | None
    """As recorded."""
    state: str
    """`SAME`, `CHANGED`, `MISSING` or `UNCHECKED` against the record."""
    step_id: str | None = None
    """The step that made it; None for a file without a record, such as a raw file."""
    problem: str | None = None
    """Why its own record cannot be read, or is not followed."""


@dataclass
class Chain:
    """All products and steps behind a product, each once."""

    root: str
    """Key of the product asked about."""
    products: dict[str, Product] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def inputs(self, step: Step) -> list[Product]:
        """Return the products that a step has read, in its order."""
        return [self.products[entry.checksum] for entry in step.inputs]

    def sources(self) -> list[Product]:
        """Return the products without a step: raw files, and what the chain breaks off at."""
        return [found for found in self.products.values() if found.step_id is None]

    def problems(self) -> list[str]:
        """Return sentences about what is missing, has changed or cannot be read."""
        return list(_problems(self.products.values()))


def follow(path: str | Path, search: Sequence[str | Path] = (), *, check: bool = True) -> Chain:
    """Return the chain of a product.

    An input is looked for where the step found it (as the path is, and beside the product), then by
    its name in the folders of `search`. What has another checksum than the step recorded is said to
    have changed, and not followed: what it is made of now is not what the product was made of.

    Parameters
    ----------
    path
        The product, of any kind that `lineage.reader.last_step` reads.
    search
        Folders for inputs that have moved.
    check
        Compute the checksums of all files, which reads all of their bytes. If not, what lies at the
        recorded place is taken for it.

    Raises
    ------
    AstriError
        When there is no such product, or it has no record.
    """
    path = Path(path)
    step = last_step(path)
    if step is None:
        raise AstriError(
            f"{path} does not say where it comes from: it has no provenance of this package, nor "
            "has its folder. Give a product of astri-gpu."
        )
    places = _Places([Path(folder) for folder in search], check)
    checksum = places.checksum(path) if check else None
    root = Product(checksum or str(path), str(path), path, checksum, SAME, step.step_id)
    chain = Chain(root.key, {root.key: root}, {step.step_id: step})
    waiting = [(step, path)]
    while waiting:
        made_by, product = waiting.pop(0)
        for entry in made_by.inputs:
            if entry.checksum in chain.products:
                continue  # shared by several steps, or a circle
            found, its_step = _find(entry, product, places)
            chain.products[entry.checksum] = found
            if its_step is not None and its_step.step_id not in chain.steps:
                chain.steps[its_step.step_id] = its_step
                waiting.append((its_step, found.path or product))
    return chain


def _find(entry: Input, product: Path, places: "_Places") -> tuple[Product, Step | None]:
    """Return an input as it is now, and the step that made it."""
    path, state = places.find(entry, product)
    step, problem = None, None
    if path is not None and state != CHANGED:
        try:
            step = last_step(path)
        except AstriError as error:
            problem = str(error)
    step_id = None if step is None else step.step_id
    found = Product(entry.checksum, entry.path, path, entry.checksum, state, step_id, problem)
    return found, step


class _Places:
    """Where files are, and their checksums, each computed once."""

    def __init__(self, search: Sequence[Path], check: bool) -> None:
        self._search = search
        self._check = check
        self._known: dict[Path, str | None] = {}
        for folder in search:
            if not folder.is_dir():
                raise AstriError(f"The folder {folder} to search does not exist: check search=.")

    def checksum(self, path: Path) -> str | None:
        """Return the checksum of a file or store; None if it cannot be read."""
        place = path.resolve()
        if place not in self._known:
            try:
                self._known[place] = fingerprint(place)
            except AstriError:
                self._known[place] = None
        return self._known[place]

    def find(self, entry: Input, product: Path) -> tuple[Path | None, str]:
        """Return where an input is, and its state."""
        changed = None
        for place, exact in _candidates(entry.path, product):
            if not place.exists():
                continue
            if not self._check:
                return place, UNCHECKED
            if self.checksum(place) == entry.checksum:
                return place, SAME
            changed = changed or (place if exact else None)
        for folder in self._search:
            for place in sorted(folder.rglob(_literal(Path(entry.path).name))):
                if self.checksum(place) == entry.checksum:
                    return place, SAME
        return (changed, CHANGED) if changed is not None else (None, MISSING)


def _candidates(name: str, product: Path) -> Iterator[tuple[Path, bool]]:
    """Yield where an input may be, and whether that is the place recorded or just a like one."""
    recorded = Path(name)
    yield recorded, True
    parts = recorded.parts[1:] if recorded.is_absolute() else recorded.parts
    parts = tuple(part for part in parts if part != "..")
    folders = product.resolve().parents
    if not recorded.is_absolute():
        yield from ((folder.joinpath(*parts), True) for folder in folders)
    # A folder that was renamed keeps the end of the path: first/dl2b/x.zarr is last/dl2b/x.zarr.
    for start in range(len(parts)):
        yield from ((folder.joinpath(*parts[start:]), False) for folder in folders)


def _literal(name: str) -> str:
    """Return a pattern that matches a name only."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _problems(products: Iterable[Product]) -> Iterator[str]:
    for found in products:
        if found.state == MISSING:
            yield (
                f"{found.name} is missing: what it was made of is not known here (search=FOLDER "
                "looks for it by its checksum)."
            )
        elif found.state == CHANGED:
            yield (
                f"{found.path} has changed since it was read (its checksum is another): the chain "
                "ends there."
            )
        if found.problem:
            yield found.problem
