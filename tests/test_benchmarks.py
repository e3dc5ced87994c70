"""The benchmarks run and write what they measured; nothing here says how fast."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astri_gpu.store import open_store

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("numpy", "cpu")


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def benchmarks(monkeypatch):
    """Return a function that imports a module of the benchmarks, which are no installed package."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def written(folder):
    """Return the results of a quick run: the JSON file, and the text beside it."""
    (json_file,) = folder.glob("*-quick.json")
    (text_file,) = folder.glob("*-quick.md")
    return json.loads(json_file.read_text()), text_file.read_text()


def test_quick_run_of_the_parts_writes_both_files(tmp_path):
    done = run(
        "chain", "stores", "kernels", "--quick", "--backends", *BACKENDS, "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    results, text = written(tmp_path)
    assert str(tmp_path) not in text + json.dumps(results)
    assert re.match(r"# Benchmark", text)
    assert results["machine"]["cores"] >= 1
    measured = {case["backend"] for case in results["chain"]["cases"]}
    assert measured == {*BACKENDS, "cpu, one thread"}
    for case in results["chain"]["cases"]:
        assert case["images_per_s"] > 0
        assert case["peak_memory_mib"] >= case["memory_before_mib"] > 0
    assert results["chain"]["errors"]["cpu from numpy"]["worst"] < 1e-4
    for case in results["stores"]["cases"]:
        assert set(case["images_per_s"]) == {"whole", "reading", "computing", "writing"}
        assert case["n_stereo"] > 0
    kernels = {entry["kernel"] for entry in results["kernels"]}
    assert {"tail-cuts", "islands", "hillas", "stereo planes", "stereo lines"} <= kernels


def test_unknown_part_is_refused():
    done = run("everything")
    assert done.returncode == 2
    assert "there is no part everything" in done.stderr


def test_table_goes_on_after_a_row_that_fails(tmp_path):
    names = ["chain", "waveforms", "memory"]
    absent = tmp_path / "absent.simtel.gz"
    done = run("table", "--quick", "--rows", *names, "--output", tmp_path, "--simtel", absent)
    assert done.returncode == 1, done.stderr
    assert "failed: waveforms" in done.stderr
    results, text = written(tmp_path)
    assert str(tmp_path) not in text + json.dumps(results)
    chain, waveforms, memory = results["table"]
    assert [entry["name"] for entry in results["table"]] == names
    assert waveforms["status"] == "failed"
    assert "absent.simtel.gz" in waveforms["reason"]
    assert chain["status"] == memory["status"] == "measured"
    assert chain["rate"] > 0
    assert chain["error"] < 1e-4
    assert chain["peak_memory_mib"] > 0
    assert 0 < chain["rate"] < chain["ceiling_rate"]
    assert memory["unit"] == "MiB"
    assert memory["ratio"] == memory["rate"] / memory["peer_rate"]
    assert "yes" not in text  # no goal is reached in a smoke test
    for name in names:
        assert re.search(rf"^\| {name} \|", text, re.MULTILINE)
        assert f"* **{name}**: " in text


@pytest.mark.parametrize("particle", ["gammas", "protons"])
def test_simulation_rows_agree_with_the_reference(benchmarks, particle):
    rows, row = benchmarks("rows"), benchmarks("row")
    (chosen,) = (entry for entry in rows.ROWS if entry.name == particle)
    entry = row.outcome(chosen, row.Settings(quick=True))
    assert entry["status"] == "measured", entry
    assert entry["unit"] == "showers/s"
    assert entry["rate"] > 0
    assert entry["error"] < 1e-5


def test_waveforms_of_a_real_file(benchmarks, simtel):
    rows, row = benchmarks("rows"), benchmarks("row")
    settings = row.Settings(quick=True, simtel=(str(simtel("gct_checs_muons.simtel.zst")),))
    entry = row.outcome(rows.waveforms.ROW, settings)
    assert entry["status"] == "measured", entry
    assert entry["error"] < 1e-4
    assert entry["rate"] > 0
    assert "gct_checs_muons.simtel.zst" in entry["notes"][0]


def test_scaling_draws_every_curve(benchmarks, monkeypatch, tmp_path):
    """The runs from store to store, which the row `memory` of the table makes, are made up."""
    scaling = benchmarks("scaling")

    def process_run(inputs, **options):
        return {"seconds": 0.3 + 0.1 * len(inputs), "peak_memory_mib": 500.0}

    monkeypatch.setattr(scaling, "process_run", process_run)
    monkeypatch.setattr(
        scaling, "simulate_run", lambda n, folder, options: process_run(range(n // 100))
    )
    assert benchmarks("__main__").main(["scaling", "--quick", "--output", str(tmp_path)]) == 0
    results, text = written(tmp_path)
    scaling = results["scaling"]
    assert set(scaling) == {"batch", "cores", "files", "memory"}
    assert {"cpu", "numpy", "jax"} <= set(scaling["batch"]["curves"])
    assert {point["cores"] for point in scaling["cores"]["curves"]["in memory, threads"]} >= {1}
    assert scaling["files"]["per_file_s"] > 0
    assert set(scaling["memory"]["growth"]) == {"process", "simulate"}
    pictures = sorted(tmp_path.glob("*.png"))
    assert sorted(results["pictures"]) == [path.name for path in pictures]
    assert len(pictures) == len(scaling)
    for path in pictures:
        assert path.stat().st_size <= 200_000
        assert f"({path.name})" in text


def test_row_whose_process_dies_says_so(benchmarks):
    rows, row = benchmarks("rows"), benchmarks("row")
    unknown = row.Row("no such row", "nothing", "", lambda settings: None)
    entry = rows.measure_row(unknown, row.Settings(quick=True))
    assert entry["status"] == "failed"
    assert entry["reason"].startswith("ValueError")


def test_killed_process_is_told_by_its_signal(benchmarks, monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(RuntimeError, match="ended by signal 9"):
        benchmarks("cases").run_case("chain", fresh=False)


def test_rows_say_what_they_lack(benchmarks):
    """Without files, and without a GPU, a row is not measured, which is no failure."""
    row, rows = benchmarks("row"), benchmarks("rows")
    for chosen in (rows.ingest.ROW, rows.waveforms.ROW):
        entry = row.outcome(chosen, row.Settings(quick=True))
        assert entry["status"] == "not measured"
        assert "--simtel" in entry["reason"]


def test_goals_are_judged_in_full_runs_only(benchmarks):
    row = benchmarks("row")
    fast = row.Row("fast", "something", "", lambda _: row.Measured(rate=1.0, reached=True))
    assert row.outcome(fast, row.Settings())["reached"] is True
    assert row.outcome(fast, row.Settings(quick=True))["reached"] is None


def test_table_shows_rates_reasons_and_goals(benchmarks):
    row = benchmarks("row")

    def broken(settings):
        raise OSError("cannot open '/somewhere/else/dl0.zarr': no | such file")

    def absent(settings):
        raise row.NotMeasured("no GPU here")

    def fast(settings):
        return row.Measured(
            rate=123456.0,
            peer="the peer",
            peer_rate=1234.0,
            ratio=100.0,
            ceiling="the limit",
            ceiling_rate=246912.0,
            reached=False,
            error=1e-7,
            error_from="the reference",
            peak_memory_mib=100.0,
            notes=("a note",),
        )

    entries = [
        row.outcome(row.Row(measure.__name__, "something", "≥ 200", measure), row.Settings())
        for measure in (broken, absent, fast)
    ]
    assert [entry["status"] for entry in entries] == ["failed", "not measured", "measured"]
    text = benchmarks("report_rows").rows_table(entries)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({re.sub(r"\\\|", "", line).count("|") for line in lines}) == 1
    assert "**failed**: OSError: cannot open 'dl0.zarr': no \\| such file" in lines[1]
    assert "not measured: no GPU here" in lines[2]
    assert lines[3] == (
        "| fast | 123 000 images/s | the peer: 1 230 | 100 | the limit: 247 000 | 50 % | ≥ 200 "
        "| **no** | 1.0e-07 | 100 |"
    )
    assert "* **fast**: something; a note; the error is that from the reference." in text


def test_files_cost_is_a_line(benchmarks):
    points = [
        {"files": n, "images": n * length, "seconds": n * (0.5 + length * 1e-5)}
        for n in (1, 5, 20)
        for length in (100, 10_000)
    ]
    found = benchmarks("scaling").fit_line(points)
    assert found["per_file_s"] == pytest.approx(0.5)
    assert found["per_image_s"] == pytest.approx(1e-5)
    assert found["worst"] < 1e-9


@pytest.mark.parametrize(("n_cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6])])
def test_thread_counts(benchmarks, n_cores, counts):
    assert benchmarks("scaling").thread_counts(n_cores) == counts


def test_paths_stay_out_of_the_results(benchmarks):
    command = "table --simtel /a/b /a/c --quick --scratch=/x --output /y chain"
    kept = benchmarks("__main__").without_paths(command.split())
    assert kept == ["table", "--quick", "chain"]


def test_device_row_measures_a_backend(benchmarks):
    """Where there is no GPU, on a backend that queues batches just as well."""
    device, row = benchmarks("rows.device"), benchmarks("row")
    found = device.measure_on("jax", row.Settings(quick=True))
    assert found.rate > 0
    assert found.error < 1e-4
    assert found.ceiling_rate > 0


def test_lengthened_store_has_all_images_again(benchmarks, tmp_path):
    images, runs = benchmarks("astri_images"), benchmarks("runs")
    pool = images.make_events(4096)  # a shard
    n_images = images.write_store(tmp_path / "short.zarr", 4096, pool=pool)
    runs.lengthened(tmp_path / "short.zarr", tmp_path / "long.zarr", 3)
    short, long = open_store(tmp_path / "short.zarr"), open_store(tmp_path / "long.zarr")
    assert long.attrs["n_images"] == 3 * n_images
    (camera,) = short.cameras()
    path = f"dl0/image/{camera}"
    adc = short.read(f"{path}/adc")
    for k in range(3):
        rows = k * n_images, (k + 1) * n_images
        np.testing.assert_array_equal(long.read(f"{path}/adc", *rows), adc)
    n_events = short.n_rows("dl0/event")
    np.testing.assert_array_equal(long.read("dl0/event/event_id"), 1 + np.arange(3 * n_events))
    np.testing.assert_array_equal(
        long.read(f"{path}/event_index", n_images, 2 * n_images),
        short.read(f"{path}/event_index") + n_events,
    )


def test_shards_that_are_not_full_cannot_be_linked(benchmarks, tmp_path):
    images, runs = benchmarks("astri_images"), benchmarks("runs")
    images.write_store(tmp_path / "short.zarr", 4160, pool=images.make_events(4160))
    with pytest.raises(ValueError, match="4160 rows do not fill shards of 4096"):
        runs.lengthened(tmp_path / "short.zarr", tmp_path / "long.zarr", 2)


def test_row_of_the_packets(benchmarks):
    rows, row = benchmarks("rows"), benchmarks("row")
    (chosen,) = (entry for entry in rows.ROWS if entry.name == "preprocess")
    entry = row.outcome(chosen, row.Settings(quick=True))
    assert entry["status"] == "measured", entry
    assert entry["unit"] == "MB/s"
    assert entry["rate"] > 0


def test_amplitude_is_compared_where_the_index_has_no_part_in_it(benchmarks):
    true, n = (2e-11, 2.5), 20_000
    # Flux at 3 TeV and index vary on their own, by 5 % and 0.1.
    rng = np.random.default_rng(1)
    index = true[1] + 0.1 * rng.standard_normal(n)
    flux = true[0] * 3.0 ** -true[1] * (1 + 0.05 * rng.standard_normal(n))
    covariance = np.cov(flux * 3.0**index, index)
    found = benchmarks("night").compared(*true, covariance, true)
    assert found["energy_tev"] == pytest.approx(3.0, rel=0.05)
    assert found["ratio"] == pytest.approx(1.0)
    assert found["ratio_error"] == pytest.approx(0.05, rel=0.05)
    assert found["index_error"] == pytest.approx(0.1, rel=0.05)
    assert found["pull"] == found["index_pull"] == 0.0
