"""The stage `provenance`: where a product comes from, as a tree, and as a W3C PROV document."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astri_gpu.stages.outcome import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text
    from rich.tree import Tree

    from astri_gpu.config_science import ProvenanceConfig
    from astri_gpu.lineage.chain import Chain, Product
    from astri_gpu.lineage.reader import Step

__all__ = ["Summary", "run"]

PIPE_WIDTH = 120  # characters where there is no terminal
N_OPTIONS = 8  # of a step that are shown; the document has them all
LONGEST = 40  # characters of a value
N_ALIKE = 5  # inputs of a step that are drawn as one


@dataclass(frozen=True)
class Summary:
    """What the chain of a product holds."""

    path: Path
    n_steps: int
    n_products: int
    n_sources: int
    problems: tuple[str, ...]
    written: Path | None
    seconds: float

    @property
    def line(self) -> str:
        """Return steps, files and problems in one line."""
        written = "" if self.written is None else f": {self.written}"
        problems = f", {counted(len(self.problems), 'problem')}" if self.problems else ""
        return (
            f"provenance: {counted(self.n_steps, 'step')} and {counted(self.n_products, 'product')}"
            f" behind {self.path}, {self.n_sources} of them without a record{problems}, in "
            f"{self.seconds:.1f} s{written}"
        )


def run(config: "ProvenanceConfig") -> Summary:
    """Print the chain of a product back to the raw files, and write it if asked to.

    Raises
    ------
    UsageError
        When the output has an unknown ending, or exists and may not be replaced.
    AstriError
        When there is no such product, it has no record, or the output cannot be written.
    """
    from rich.console import Console

    from astri_gpu.lineage.chain import follow
    from astri_gpu.lineage.document import write_document
    from astri_gpu.options import path_list

    clock = time.perf_counter()
    search = [] if config.search is None else path_list(config.search, "search")
    chain = follow(config.input, search, check=config.check)
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    console = Console(width=width, highlight=False)
    console.print(_tree(chain, config.full))
    for problem in chain.problems():
        console.print(problem, style="yellow", markup=False)
    if config.output is not None:
        write_document(config.output, chain, overwrite=config.overwrite)
    return Summary(
        path=Path(config.input),
        n_steps=len(chain.steps),
        n_products=len(chain.products) - 1,
        n_sources=len(chain.sources()),
        problems=tuple(chain.problems()),
        written=None if config.output is None else Path(config.output),
        seconds=time.perf_counter() - clock,
    )


def _tree(chain: "Chain", full: bool) -> "Tree":
    """Return the chain as a tree; what stands in it twice is drawn once."""
    from rich.text import Text
    from rich.tree import Tree

    shown: set[str] = set()

    def grow(branch: "Tree", product: "Product") -> None:
        step = chain.steps.get(product.step_id or "")
        if step is None:
            return
        if step.step_id in shown:
            branch.add(Text(f"{step.stage} {step.step_id.rpartition('-')[2]}, as above", "dim"))
            return
        shown.add(step.step_id)
        node = branch.add(_about_step(step))
        for group in _groups(
            chain.inputs(step), chain, len(chain.products) + 1 if full else N_ALIKE
        ):
            grow(node.add(_about_product(group[0])), group[0])
            if len(group) > 1:
                node.add(Text(f"and {len(group) - 1} more like it (full=true shows them)", "dim"))

    root = chain.products[chain.root]
    tree = Tree(Text(root.name, "bold"))
    grow(tree, root)
    return tree


def _groups(
    inputs: "Sequence[Product]", chain: "Chain", longest: int
) -> "Iterator[Sequence[Product]]":
    """Yield the inputs of a step; many from one folder, by one stage, all well, are one group."""

    def alike(product: "Product") -> tuple[object, ...]:
        step = chain.steps.get(product.step_id or "")
        parent = Path(product.name).parent
        return parent, step and step.stage, product.state, product.problem

    groups: dict[tuple[object, ...], list[Product]] = {}
    for product in inputs:
        groups.setdefault(alike(product), []).append(product)
    for group in groups.values():
        if len(group) < longest or group[0].problem:
            yield from ([product] for product in group)
        else:
            yield group


def _about_step(step: "Step") -> "Text":
    from rich.text import Text

    from astri_gpu.pipeline import PATHS

    text = Text(step.stage, "bold cyan")
    text.append(f" {step.step_id.rpartition('-')[2]}", "dim")
    text.append(f"  {step.software} {step.version}, {_minute(step.stopped)}", "default")
    changed = {name: value for name, value in step.changed.items() if name not in PATHS}
    options = [f"{name}={str(value)[:LONGEST]}" for name, value in changed.items()]
    more = [f"and {len(options) - N_OPTIONS} more"] if len(options) > N_OPTIONS else []
    if options:
        text.append("\n" + ", ".join([*options[:N_OPTIONS], *more]), "dim")
    return text


def _about_product(product: "Product") -> "Text":
    from rich.text import Text

    from astri_gpu.lineage.chain import CHANGED, MISSING

    text = Text(product.name)
    if product.path is not None and str(product.path) != product.name:
        text.append(f" (now {product.path})", "dim")
    text.append(f"  {(product.checksum or '')[:19]}", "dim")
    if product.state == MISSING:
        text.append("  missing", "bold red")
    elif product.state == CHANGED:
        text.append("  has changed since", "bold red")
    elif product.problem:
        text.append("  cannot be read", "bold red")
    elif product.step_id is None:
        text.append("  no record", "green")
    return text


def _minute(stopped: str | None) -> str:
    """Return a time to the second, without the letter between date and hour."""
    return (stopped or "time unknown").replace("T", " ").removesuffix("+00:00")
