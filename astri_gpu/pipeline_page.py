"""The page of a chain of stages, `run.html`: steps, key numbers, warnings, pictures, reports."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from astri_gpu.pipeline import DONE, FAILED, Entry

__all__ = ["PAGE", "write_page"]

PAGE = "run.html"
REPORTS, PICTURES = ("*.html",), ("*.png",)

STATES = {DONE: "done", FAILED: "failed"}

STYLE = """\
.steps th, .steps td:nth-child(2), td.line { text-align: left; color: #1b1e28; }
td.bad { color: #b3261e; font-weight: 600; }
.pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
.pictures figure { margin: 0; } figcaption { color: #5b6273; font-size: .9rem; }
ul.warnings li { margin-bottom: .3rem; overflow-wrap: anywhere; }
"""


def write_page(folder: Path, title: str, entries: Sequence[Entry], n_steps: int) -> None:
    """Write or replace the page of a run.

    Parameters
    ----------
    folder
        Of the run; links are relative to it, so it can move as a whole.
    title
        Of the pipeline.
    entries
        What is recorded of the steps.
    n_steps
        Of the whole chain.
    """
    from astri_gpu.output_file import whole_file
    from astri_gpu.report.page import STYLE as COMMON

    body = [
        f"<h1>{escape(title or folder.name)}</h1>",
        f"<p>{escape(_state(entries, n_steps))}</p>",
        *_facts(entries),
        *_reports(folder, entries),
        *_pictures(folder, entries),
        *_warnings(entries),
        *_steps(entries),
    ]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title or folder.name)}</title>",
        f"<style>{COMMON}{STYLE}</style></head><body>",
        *body,
        "<footer>Written by astri-gpu run; everything in run.json.</footer></body></html>",
    ]
    with whole_file(folder / PAGE, overwrite=True) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _state(entries: Sequence[Entry], n_steps: int) -> str:
    """Return how far the chain is, in one sentence."""
    n_done = sum(entry.done for entry in entries)
    seconds = sum(entry.seconds for entry in entries)
    failed = next((entry for entry in entries if entry.state == FAILED), None)
    state = f"{n_done} of {n_steps} steps done in {seconds:,.0f} s."
    return state if failed is None else f"{state} Step {failed.stage} failed: {failed.summary}"


def _facts(entries: Sequence[Entry]) -> Iterator[str]:
    rows = [(name, fact) for entry in entries for name, fact in entry.facts.items()]
    if rows:
        yield "<h2>Key numbers</h2><table>"
        for name, fact in rows:
            yield f"<tr><th>{escape(name)}</th><td class='line'>{escape(fact)}</td></tr>"
        yield "</table>"


def _reports(folder: Path, entries: Sequence[Entry]) -> Iterator[str]:
    found = list(_files(folder, entries, REPORTS))
    if found:
        links = ", ".join(_link(folder, path) for path in found)
        yield f"<h2>Reports</h2><p>{links}</p>"


def _pictures(folder: Path, entries: Sequence[Entry]) -> Iterator[str]:
    found = list(_files(folder, entries, PICTURES))
    if found:
        yield '<h2>Pictures</h2><div class="pictures">'
        for path in found:
            name = path.relative_to(folder).as_posix()
            source = quote(name)
            yield (
                f'<figure><a href="{source}"><img src="{source}" alt="{escape(name)}" '
                f'loading="lazy"></a><figcaption>{escape(name)}</figcaption></figure>'
            )
        yield "</div>"


def _warnings(entries: Sequence[Entry]) -> Iterator[str]:
    lines = [(entry.stage, text) for entry in entries for text in entry.warnings]
    if lines:
        yield '<h2>Warnings</h2><ul class="warnings">'
        yield from (f"<li>{escape(stage)}: {escape(text)}</li>" for stage, text in lines)
        yield "</ul>"


def _steps(entries: Sequence[Entry]) -> Iterator[str]:
    heads = "<th></th><th>step</th><th>s</th><th>what came out</th>"
    yield f'<h2>Steps</h2><table class="steps"><tr>{heads}</tr>'
    for number, entry in enumerate(entries, start=1):
        state = "" if entry.done else STATES.get(entry.state, entry.state)
        *_, last = entry.summary.splitlines() or [""]
        what = escape(": ".join(filter(None, (state, last.removeprefix(f"{entry.stage}: ")))))
        kind = "line" if entry.done else "line bad"
        yield (
            f'<tr><td>{number}</td><td title="{escape(entry.command)}">{escape(entry.stage)}</td>'
            f'<td>{entry.seconds:,.1f}</td><td class="{kind}">{what}</td></tr>'
        )
    yield "</table>"


def _files(folder: Path, entries: Sequence[Entry], patterns: Sequence[str]) -> Iterator[Path]:
    """Yield files for people among the outputs inside the folder: within them, and beside files."""
    for entry in entries:
        for name in entry.outputs if entry.done else ():
            output = folder / name
            if Path(name).is_absolute():
                continue
            for pattern in patterns:
                if output.is_dir() and not (output / "zarr.json").exists():
                    yield from sorted(output.glob(pattern))
                elif output.is_file():
                    yield from sorted(output.parent.glob(f"{output.stem}_{pattern}"))


def _link(folder: Path, path: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return f'<a href="{quote(name)}">{escape(name)}</a>'
