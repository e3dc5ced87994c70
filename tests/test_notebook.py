"""The notebooks: stored without outputs, and every cell runs, without Jupyter."""

import ast
import json
import re
import tempfile
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def test_there_is_a_notebook():
    assert "first_shower" in {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    assert book["nbformat"] == 4
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        else:
            assert set(cell) == {"cell_type", "id", "metadata", "source"}
    assert "widgets" not in book["metadata"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_plain_python_of_our_line_length(path):
    for text in code_cells(path):
        ast.parse(text)  # no magics
        assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    namespace = {"__name__": "__main__"}
    try:
        for number, text in enumerate(code_cells(path)):
            # Draft tables are made in seconds; the cells are the same.
            text = re.sub(r'^TABLES = "standard"', 'TABLES = "draft"', text, flags=re.MULTILINE)
            exec(compile(text, f"{path.name}, code cell {number}", "exec"), namespace)
    finally:
        pyplot.close("all")
    assert namespace["TABLES"] == "draft"
    check = CHECKS.get(path.stem)
    if check is not None:
        check(namespace)


def check_first_shower(names):
    """The stage and the steps by hand agree, and the directions are those of gamma rays."""
    import numpy as np

    assert len(names["telescopes"]) >= 4
    by_hand = np.where(names["cleaned"].mask.sum(axis=1) >= 3, names["parameters"].width, np.nan)
    np.testing.assert_allclose(names["width"], by_hand, rtol=1e-4, equal_nan=True)
    assert names["event"].direction is not None
    assert names["valid"].sum() > 500
    assert np.median(names["error"]) < 15  # arc minutes


CHECKS = {"first_shower": check_first_shower}
