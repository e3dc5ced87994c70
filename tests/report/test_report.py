"""The stage `report`: its files, its figures, and its sentences."""

import html.parser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astri_gpu.config import IngestConfig, ProcessConfig, ReportConfig, compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.stages import ingest, process, report, simulate

PNG = b"\x89PNG\r\n\x1a\n"
FILES = {
    "effective_area.png",
    "errors.png",
    "event.png",
    "overview.png",
    "parameters.png",
    "report.html",
    "summary.json",
}
MODEL = "Fast model for a test."  # of `stores`


def config(paths, output, **options):
    names = [str(path) for path in paths]
    return ReportConfig(
        input=names, output=str(output), **{"dpi": 30, "progress": False, **options}
    )


class _Images(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])


def test_report_of_two_particles(stores, tmp_path):
    paths = [stores["gamma"], stores["more"], stores["proton"]]
    result = report.run(config(paths, tmp_path / "new" / "report"))
    folder = tmp_path / "new" / "report"
    assert {entry.name for entry in folder.iterdir()} == FILES
    assert [entry.name for entry in folder.parent.iterdir()] == ["report"]
    for name in FILES:
        if name.endswith(".png"):
            assert (folder / name).read_bytes().startswith(PNG)
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert list(record["samples"]) == ["gamma", "proton"]
    assert record["samples"]["proton"]["rates_hz"]["array"] > 0
    assert record["provenance"]["stage"] == "report"
    assert len(record["provenance"]["inputs"]) == 3
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert MODEL in text
    assert "Crab nebula" in text
    images = _Images()
    images.feed(text)
    assert set(images.sources) == {name for name in FILES if name.endswith(".png")} - {
        "overview.png"
    }
    assert "3 stores" in result.line
    assert str(folder / "report.html") in result.line


def test_names_are_escaped(stores, tmp_path):
    odd = tmp_path / "a<b>&c.zarr"
    shutil.copytree(stores["unknown"], odd)
    report.run(config([odd, stores["gamma"]], tmp_path / "report"))
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "a<b>" not in text
    assert "a&lt;b&gt;&amp;c" in text
    assert "do not say how many showers were thrown" in text


def test_fast_model_stands_in_every_figure(collected, stores):
    from astri_gpu.report import figures

    samples = collected(stores["gamma"], stores["proton"])
    event = figures.brightest_event(samples)
    assert event.kind == "gamma"
    drawn = [
        figures.parameter_figure(samples, 30),
        figures.area_figure(samples, 5, 30),
        figures.error_figure(samples, 5, 30),
        figures.overview_figure(samples, event, 5, 30),
    ]
    for figure in drawn:
        assert MODEL in figure._supxlabel.get_text()
    assert figures.picture_of_event(event, 30).legends[0].get_title().get_text().endswith(MODEL)
    plain = figures.area_figure(collected(stores["unknown"]), 5, 30)
    assert plain._supxlabel is None


def test_without_charges_and_without_thrown_showers(stores, tmp_path):
    report.run(config([stores["unknown"]], tmp_path / "report"))
    record = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    numbers = record["samples"]["gamma"]
    assert numbers["thrown"] is numbers["rates_hz"] is numbers["fraction_triggered"] is None
    assert numbers["events"] == 399
    assert {entry.name for entry in (tmp_path / "report").iterdir()} == FILES


def test_store_without_events(make_store, tmp_path):
    path = make_store(tmp_path / "one.zarr", "proton", 5, n_events=1)  # only the pedestal
    result = report.run(config([path], tmp_path / "report"))
    assert result.numbers["proton"]["events"] == 0
    assert (tmp_path / "report" / "report.html").exists()


def test_existing_report_is_kept_unless_overwrite(stores, tmp_path):
    output = tmp_path / "report"
    report.run(config([stores["unknown"]], output))
    before = (output / "summary.json").read_bytes()
    (output / "mine.txt").write_text("notes")
    with pytest.raises(UsageError, match="overwrite=true"):
        report.run(config([stores["more"]], output))
    assert (output / "summary.json").read_bytes() == before
    report.run(config([stores["more"]], output, overwrite=True))
    assert (output / "summary.json").read_bytes() != before
    assert (output / "mine.txt").read_text() == "notes"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report"]


def test_failure_leaves_nothing(stores, tmp_path, monkeypatch):
    def full(figure, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("astri_gpu.report.figures.save", full)
    with pytest.raises(AstriError, match="is full"):
        report.run(config([stores["unknown"]], tmp_path / "report"))
    assert list(tmp_path.iterdir()) == []


def test_sentences_of_wrong_requests(stores, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        report.run(config([stores["gamma"]], other, overwrite=True))
    with pytest.raises(UsageError, match="is a file"):
        report.run(config([stores["gamma"]], other / "file"))
    with pytest.raises(UsageError, match="No file matches"):
        report.run(config([tmp_path / "*.zarr"], tmp_path / "report"))
    with pytest.raises(AstriError, match="not a store"):
        report.run(config([other], tmp_path / "report"))
    with pytest.raises(UsageError, match="bins_per_decade is 0"):
        config([other], tmp_path / "report", bins_per_decade=0)


def test_store_without_truth_is_refused(stores, tmp_path):
    copy = tmp_path / "observed.zarr"
    shutil.copytree(stores["unknown"], copy, ignore=shutil.ignore_patterns("simulation"))
    with pytest.raises(AstriError, match="no simulated truth"):
        report.run(config([copy], tmp_path / "report"))


def test_real_files(simtel, tmp_path):
    dl0, dl2 = tmp_path / "dl0.zarr", tmp_path / "dl2.zarr"
    ingest.run(
        IngestConfig(
            input=str(simtel("gct_checs_muons.simtel.zst")), output=str(dl0), progress=False
        )
    )
    with pytest.raises(AstriError, match="run `astri-gpu process` on it"):
        report.run(config([dl0], tmp_path / "report"))
    process.run(ProcessConfig(input=str(dl0), output=str(dl2), progress=False))
    result = report.run(config([dl2], tmp_path / "report"))
    (numbers,) = result.numbers.values()
    assert numbers["events"] > 0
    assert not numbers["models"]


def test_simulated_production(tmp_path):
    """The fast model as `make demo` runs it: numbers of the size that real Monte Carlo has."""
    dl0, dl2 = tmp_path / "dl0.zarr", tmp_path / "dl2.zarr"
    words = ["n_showers=4000", "shower=draft", "progress=false", "calibration_events.n_pedestal=3"]
    simulate.run(compose("simulate", [*words, f"output='{dl0}'"]))
    process.run(ProcessConfig(input=str(dl0), output=str(dl2), images=True, progress=False))
    result = report.run(config([dl2], tmp_path / "report"))
    numbers = result.numbers["gamma"]
    assert numbers["thrown"] == 4000
    assert 0.01 < numbers["fraction_triggered"] < 0.04
    assert 1.5 < numbers["images_per_event"] < 4
    assert numbers["direction_error_68_deg_well_seen"] < 0.15
    assert sum(row["triggered"] for row in numbers["by_energy"]) == numbers["events"]
    assert sum(row["thrown"] for row in numbers["by_energy"]) == 4000
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "no substitute for CORSIKA" in text


def test_pyplot_stays_out(stores, tmp_path):
    code = (
        "import sys; from astri_gpu.cli import main; "
        f"code = main(['report', {str(stores['more'])!r}, "
        f"'output=' + {str(tmp_path / 'report')!r}, 'dpi=30', 'progress=false']); "
        "sys.exit(code or 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert Path(tmp_path / "report" / "report.html").exists()
