"""The stage `ingest`: several files, bad files, and runs that are taken up again."""

import logging
import os
import shutil

import pytest

from astri_gpu.config import ExecutionConfig, IngestConfig
from astri_gpu.errors import AstriError, PartialFailure, UsageError
from astri_gpu.stages.ingest import run
from astri_gpu.stages.units import output_names
from astri_gpu.store import open_store

MUONS = "gct_checs_muons.simtel.zst"
SINGLE = "prod4_pixelsettings_v3.gz"
TRUNCATED = "test_lasercal_v3.simtel.gz"


def config(inputs, output, **options):
    return IngestConfig(
        input=[str(path) for path in inputs], output=str(output), progress=False, **options
    )


def test_stage_with_one_input(simtel, tmp_path):
    summary = run(config([simtel(MUONS)], tmp_path / "a.zarr"))
    assert summary.line.startswith("ingest: 1 file, 20 events, 20 images in ")
    assert open_store(tmp_path / "a.zarr").attrs["config"]["on_error"] == "stop"
    again = run(config([simtel(MUONS)], tmp_path / "a.zarr"))
    assert again.line.startswith("ingest: nothing to do")
    with pytest.raises(UsageError, match=r"made with other options \(max_events None → 3\)"):
        run(config([simtel(MUONS)], tmp_path / "a.zarr", max_events=3))
    assert run(config([simtel(MUONS)], tmp_path / "a.zarr", overwrite=True)).n_images == 20


def test_stage_in_parallel_skips_bad_files_and_resumes(simtel, tmp_path, caplog):
    names = [SINGLE, TRUNCATED, MUONS]
    for name in names:
        shutil.copy(simtel(name), tmp_path / name)
    pattern = [tmp_path / "*.*"]
    output = tmp_path / "stores"
    with pytest.raises(
        PartialFailure, match=r"1 of 3 inputs failed.* is truncated after event 104"
    ):
        run(config(pattern, output, on_error="skip", execution=ExecutionConfig(n_workers=2)))
    assert sorted(os.listdir(output)) == ["gct_checs_muons.zarr", "prod4_pixelsettings_v3.zarr"]
    caplog.clear()
    caplog.set_level(logging.INFO)
    summary = run(config(pattern, output, on_error="keep", execution=ExecutionConfig(n_workers=2)))
    assert (summary.n_done, summary.n_before, summary.n_images) == (1, 2, 10)
    assert "(2 more were done before)" in summary.line
    assert "its 3 complete events were kept" in summary.warnings[0]
    assert any("complete events were kept" in record.message for record in caplog.records)
    assert run(config(pattern, output)).n_done == 0


def test_stage_stops_at_the_first_bad_file(simtel, tmp_path):
    with pytest.raises(AstriError, match="is truncated after event 104: copy it again"):
        run(
            config(
                [simtel(TRUNCATED), simtel(MUONS)],
                tmp_path / "out",
                execution=ExecutionConfig(n_workers=1),
            )
        )
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_stage_with_every_file_bad(tmp_path):
    for name in ("a.simtel", "b.simtel"):
        (tmp_path / name).write_text("not this")
    with pytest.raises(AstriError, match="2 of 2 inputs failed") as caught:
        run(
            config(
                [tmp_path / "*.simtel"],
                tmp_path / "out",
                on_error="skip",
                execution=ExecutionConfig(n_workers=1),
            )
        )
    assert caught.value.exit_code == 1


def test_stage_inputs_that_do_not_fit(simtel, tmp_path):
    with pytest.raises(UsageError, match=r"No file matches the input '.*nowhere\*'"):
        run(config([tmp_path / "nowhere*"], tmp_path / "out"))
    with pytest.raises(UsageError, match="event numbers repeat"):
        run(config([simtel(MUONS), simtel(SINGLE)], tmp_path / "out", obs_id=3))
    run(config([simtel(MUONS)], tmp_path / "a.zarr"))
    with pytest.raises(UsageError, match="has to be a directory for stores"):
        run(config([simtel(MUONS), simtel(SINGLE)], tmp_path / "a.zarr"))
    (tmp_path / "out").mkdir()
    (tmp_path / "a.zarr").rename(tmp_path / "out" / "prod4_pixelsettings_v3.zarr")
    with pytest.raises(UsageError, match=r"was made by ingest from gct_checs_muons.simtel.zst"):
        run(config([simtel(MUONS), simtel(SINGLE)], tmp_path / "out"))


def test_output_names(tmp_path):
    a, b = tmp_path / "a.simtel.zst", tmp_path / "run.b.simtel.gz"
    assert output_names([a], tmp_path / "x") == [tmp_path / "x"]
    names = [path.name for path in output_names([a, b], tmp_path / "x")]
    assert names == ["a.zarr", "run.b.zarr"]
    with pytest.raises(UsageError, match=r"would both become .*a\.zarr"):
        output_names([a, tmp_path / "other" / "a.simtel.gz"], tmp_path / "x")
