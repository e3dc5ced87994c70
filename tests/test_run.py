"""The stage `run`: chains of steps, what is done again and what is not, the page of a run."""

import copy
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

import astri_gpu.config
from astri_gpu import overrides, pipeline
from astri_gpu.cli import main
from astri_gpu.config import STAGES, RunConfig, compose
from astri_gpu.config_pipeline import PipelineConfig
from astri_gpu.errors import AstriError, OutputBusy, UsageError
from astri_gpu.options import specs
from astri_gpu.overrides import group_files
from astri_gpu.stages import run as stage

STEPS = [
    "simulate production=gamma n_showers={n_gammas} output=dl0.zarr",
    "process dl0.zarr output=dl2.zarr",
    "train input=[dl2.zarr,'other.zarr'] output=forests.skops",
    "check input=dl3/*.fits",
    "optimize dl2.zarr output=cuts.fits",
]
VALUES = {"n_gammas": 10, "unused": None}


def config(folder, steps=STEPS, values=VALUES, **options):
    chain = PipelineConfig(title="test", values=dict(values), steps=list(steps))
    return RunConfig(output=str(folder), pipeline=chain, progress=False, **options)


@pytest.fixture(scope="module")
def composed():
    """What has been composed by now: Hydra takes its time, and tests repeat their chains."""
    return {}


@pytest.fixture
def stages(monkeypatch, tmp_path, composed):
    """Stand-ins for the stages, which write a file and remember how they were called."""
    calls = []

    def remembered(name, words):
        key = (name, *words)
        if key not in composed:
            composed[key] = compose(name, words)
        return copy.deepcopy(composed[key])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(astri_gpu.config, "compose", remembered)
    made = SimpleNamespace(calls=calls, fail=None)

    class Stage:
        def __init__(self, name):
            self.name = name

        def run(self, options):
            overwrite = getattr(options, "overwrite", None)
            calls.append((self.name, overwrite))
            if self.name == made.fail:
                raise AstriError("the disk is full")
            output = getattr(options, "output", None)
            if output is not None:
                Path(output).write_text("done")
            return SimpleNamespace(line=f"{self.name}: all of {output}")

    monkeypatch.setattr(stage, "import_module", lambda name: Stage(name.rpartition(".")[2]))
    return made


NAMES = ["simulate", "process", "train", "check", "optimize"]


def test_steps_are_composed_inside_the_folder(tmp_path):
    steps = pipeline.make_steps(STEPS, VALUES, tmp_path)
    assert [step.stage for step in steps] == NAMES
    assert steps[0].config.n_showers == 10
    assert steps[0].command.startswith("simulate production=gamma n_showers=10 ")
    assert steps[1].config.inputs() == [str(tmp_path / "dl0.zarr")]
    assert steps[2].config.inputs() == [str(tmp_path / "dl2.zarr"), str(tmp_path / "other.zarr")]
    assert steps[3].config.inputs() == [str(tmp_path / "dl3/*.fits")]
    assert steps[3].output is None
    elsewhere = pipeline.make_steps(STEPS[:2], VALUES, tmp_path / "a (b)")
    assert [step.digest for step in elsewhere] == [step.digest for step in steps[:2]]
    absolute = pipeline.make_steps(["process /data/x.zarr output=y.zarr"], {}, tmp_path)
    assert absolute[0].config.inputs() == ["/data/x.zarr"]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([], "steps is empty"),
        ([""], "it is empty"),
        (["simulat output=a.zarr"], "did you mean 'simulate'"),
        (["run output=a"], "'run' is no stage of a chain"),
        (["process a.zarr output='b"], "quotes"),
        (["process a.zarr output=b.zarr picture_pe=3"], "did you mean 'cleaning.picture_pe'"),
        (["process a.zarr"], "output is missing"),
        (["process a.zarr output=b.zarr --multirun"], "--multirun is not possible"),
        (["process a.zarr input=c.zarr output=b.zarr"], "both name the input"),
        (["process a.zarr output={where}"], "{where} is no value"),
        (["simulate n_showers={n_gamas} output=a.zarr"], "did you mean 'n_gammas'"),
        (["process a.zarr output=b.zarr", "process c.zarr output=b.zarr"], "steps 1 and 2"),
    ],
)
def test_steps_that_cannot_be_are_refused_before_anything_runs(steps, text, tmp_path, stages):
    with pytest.raises(UsageError, match=text.replace("(", r"\(")):
        stage.run(config(tmp_path / "out", steps))
    assert not stages.calls
    assert not (tmp_path / "out").exists()


def test_a_run_its_record_and_a_second_run(stages, capsys):
    folder = Path("out")
    summary = stage.run(config(folder))
    assert [name for name, _ in stages.calls] == NAMES
    assert not any(overwrite for _, overwrite in stages.calls)
    told = capsys.readouterr().out
    assert "[2/5] astri-gpu process dl0.zarr output=dl2.zarr" in told
    assert f"to look at: {folder / 'cuts.fits'}" in told
    assert summary.line.startswith("run: 5 steps, in ")
    record = json.loads((folder / "run.json").read_text())
    assert [entry["state"] for entry in record["steps"]] == ["done"] * 5
    assert [entry["outputs"] for entry in record["steps"]][:2] == [["dl0.zarr"], ["dl2.zarr"]]
    assert record["steps"][1]["summary"] == "process: all of dl2.zarr"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["dl0.zarr", "dl2.zarr", "forests.skops", "cuts.fits", "run.json", "run.html"]
    )
    stages.calls.clear()
    again = stage.run(config(folder))
    assert not stages.calls
    assert (again.n_done, again.n_before, again.n_left) == (0, 5, 0)


def test_until_and_dry_run(stages, capsys):
    folder = Path("out")
    assert stage.run(config(folder, dry_run=True)) is None
    assert not folder.exists()
    assert capsys.readouterr().out.count("to do") == 5
    summary = stage.run(config(folder, until="process"))
    assert (summary.n_done, summary.n_left) == (2, 3)
    assert stage.run(config(folder, until="3")).n_done == 1
    assert stage.run(config(folder, until="1")).n_done == 0
    capsys.readouterr()
    stage.run(config(folder, until="4", dry_run=True))
    states = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["done", "done", "done", "to", "left"]
    assert stage.run(config(folder)).n_done == 2
    for until, text in (("6", "steps 1 to 5"), ("0", "steps 1 to 5"), ("select", "simulate, ")):
        with pytest.raises(UsageError, match=text):
            stage.run(config(folder, until=until))


def test_a_step_that_fails_is_where_the_next_run_goes_on(stages):
    folder = Path("out")
    stages.fail = "train"
    with pytest.raises(AstriError, match=r"step 3 of 5 \(train\) failed: the disk is full \[2 st"):
        stage.run(config(folder))
    entries = pipeline.read_record(folder)
    assert [entry.state for entry in entries] == ["done", "done", "failed"]
    assert entries[2].summary == "the disk is full"
    stages.fail, stages.calls[:] = None, []
    assert stage.run(config(folder)).n_before == 2
    # What the failed step has left of its output is replaced; nothing else is.
    assert stages.calls == [("train", True), ("check", False), ("optimize", False)]


def test_after_a_kill_stages_over_stores_resume_and_others_replace(stages):
    folder = Path("out")
    stage.run(config(folder))
    entries = pipeline.read_record(folder)
    entries[1].state = "running"
    pipeline.write_record(folder, "test", entries[:2])
    stages.calls.clear()
    stage.run(config(folder, until="2"))
    assert stages.calls == [("process", False)]
    entries = pipeline.read_record(folder)
    entries[2:] = [pipeline.Entry("train", "train", entries[1].digest)]
    pipeline.write_record(folder, "test", entries)
    stages.calls.clear()
    stage.run(config(folder, until="3"))
    assert stages.calls == [("train", True)]


def test_a_change_is_refused_or_done_again_with_all_behind_it(stages):
    folder = Path("out")
    stage.run(config(folder))
    changed = [STEPS[0], STEPS[1] + " cleaning.picture_pe=9", *STEPS[2:]]
    stages.calls.clear()
    with pytest.raises(UsageError, match=r"step 2 \(process\) was done as .* set overwrite=true"):
        stage.run(config(folder, changed))
    assert not stages.calls
    stages.fail = "train"
    with pytest.raises(AstriError, match="step 3 of 5"):
        stage.run(config(folder, changed, overwrite=True))
    # The last one is not forgotten: its output is replaced when its turn comes.
    stages.fail = None
    stage.run(config(folder, changed))
    done = [("process", True), ("train", True), ("train", True), ("check", True)]
    assert stages.calls == [*done, ("optimize", True)]
    assert all(entry.done for entry in pipeline.read_record(folder))


def test_a_step_that_is_worded_otherwise_is_the_same(stages):
    folder = Path("out")
    stage.run(config(folder))
    stages.calls.clear()
    same = ["simulate output=dl0.zarr n_showers=10", "process input=dl0.zarr output=dl2.zarr"]
    stage.run(config(folder, [*same, *STEPS[2:], "train dl2.zarr output=more.skops"]))
    assert stages.calls == [("train", False)]


def test_outputs_that_are_gone(stages):
    folder = Path("out")
    stage.run(config(folder))
    (folder / "dl2.zarr").unlink()
    stages.calls.clear()
    with pytest.raises(UsageError, match=r"the output dl2.zarr of step 2 \(process\) is gone"):
        stage.run(config(folder))
    stage.run(config(folder, overwrite=True))
    assert [name for name, _ in stages.calls] == NAMES[1:]
    (folder / "cuts.fits").unlink()
    stages.calls.clear()
    stage.run(config(folder))  # nothing was made of it
    assert [name for name, _ in stages.calls] == NAMES[4:]


def test_folders_that_are_not_ours(tmp_path, stages):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds thesis.tex, but no run.json"):
        stage.run(config(tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        stage.run(config(tmp_path / "thesis.tex"))
    folder = Path("out")
    folder.mkdir()
    (folder / "run.json").write_text("{")
    with pytest.raises(AstriError, match="cannot be read"):
        stage.run(config(folder))
    (folder / "run.json").unlink()
    with stage._alone(folder), pytest.raises(OutputBusy, match="Another run"):
        stage.run(config(folder))
    assert not stages.calls


OUTSIDE = ["process {raw} output=dl2.zarr", "train input=[dl2.zarr,{first}/b.zarr] output=f.skops"]


def test_files_outside_the_folder_are_seen_from_where_the_command_is_typed(tmp_path, stages):
    files = {"raw": "my data/raw", "first": "first"}
    one, two = pipeline.make_steps(OUTSIDE, {}, Path("runs/night1"), files)
    assert one.config.inputs() == ["my data/raw"]
    assert one.command == "process '../../my data/raw' output=dl2.zarr"
    assert two.config.inputs() == ["runs/night1/dl2.zarr", "first/b.zarr"]
    here = [one.digest, two.digest]
    # The same from another place, by the full name of the folder, and for all of it elsewhere.
    up = {name: f"../{path}" for name, path in files.items()}
    moved = {name: tmp_path / path for name, path in files.items()}
    assert moved["raw"].is_absolute()
    for folder, given in (
        (Path("../runs/night1"), up),
        (tmp_path / "runs/night1", files),
    ):
        steps = pipeline.make_steps(OUTSIDE, {}, folder, given)
        assert [step.digest for step in steps] == here
    (absolute, _) = pipeline.make_steps(OUTSIDE, {}, Path("runs/night1"), moved)
    assert absolute.config.inputs() == [str(moved["raw"])]
    (several,) = pipeline.make_steps(
        ["process {raw} output=x"], {}, Path("out"), {"raw": ["a", "b"]}
    )
    assert several.config.inputs() == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"raw": "", "first": "x"}, r"pipeline.files.raw is not given: write .*raw=PATH"),
        ({"raw": None, "first": "x"}, r"pipeline.files.raw is not given"),
        ({"raw": "x"}, r"\{first\} is no value"),
        ({"raw": "x", "first": "x", "n": "y"}, "both have n"),
    ],
)
def test_files_that_are_not_given_are_asked_for(files, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        pipeline.make_steps(OUTSIDE, {"n": 1}, tmp_path, files)


def test_the_page_of_a_run(stages, monkeypatch):
    folder = Path("out")
    made = stage.import_module

    def other(name):
        module = made(name)
        run = module.run

        def told(options):
            summary = run(options)
            logging.getLogger("astri_gpu.some").warning("clock of telescope %d <jumps>", 4)
            logging.getLogger("astri_gpu.some").info("nothing")
            if module.name == "train":
                Path(options.output).with_name("forests_x.png").touch()
                summary.facts = {"packets lost": "3 of 7 & counting"}
                summary.warnings = ("one file is missing", "clock of telescope 4 <jumps>")
            return summary

        module.run = told
        return module

    monkeypatch.setattr(stage, "import_module", other)
    stages.fail = "check"
    with pytest.raises(AstriError, match="step 4"):
        stage.run(config(folder))
    text = (folder / "run.html").read_text()
    assert "3 of 5 steps done" in text
    assert "Step check failed: the disk is full" in text
    assert "3 of 7 &amp; counting" in text
    assert text.count("clock of telescope 4 &lt;jumps&gt;") == 3  # train tells it twice
    assert 'src="forests_x.png"' in text
    entries = pipeline.read_record(folder)
    assert entries[2].warnings == ["clock of telescope 4 <jumps>", "one file is missing"]
    assert entries[2].facts == {"packets lost": "3 of 7 & counting"}
    assert "http" not in text


def test_options_that_the_chain_relies_on():
    found = {
        spec.key
        for entry in STAGES.values()
        for spec in specs(entry.config)
        if isinstance(spec.default, dict)
    }
    assert found == set(overrides.DICTIONARIES)
    keys = {spec.key for entry in STAGES.values() for spec in specs(entry.config)}
    assert set(pipeline.PATHS) <= keys
    for name in (*stage.RESUMING, *stage.PRODUCTS):
        assert name in STAGES


@pytest.mark.parametrize("name", group_files("pipeline"))
def test_chains_of_the_package_can_be(name, tmp_path):
    chain = compose("run", [f"pipeline={name}", "output=x"]).pipeline
    files = {file: f"/data/{file}" for file in chain.files}
    steps = pipeline.make_steps(chain.steps, chain.values, tmp_path, files)
    assert steps[-1].stage in ("report", "provenance")
    assert chain.title
    for value in (*chain.values, *chain.files):  # none is left over
        assert any(f"{{{value}}}" in step for step in chain.steps), value


def test_values_on_the_command_line(tmp_path, capsys):
    words = ["run", f"output={tmp_path / 'x'}", "dry_run=true"]
    assert main([*words, "pipeline.values.n_gammas=77"]) == 0
    assert "n_showers=77 " in capsys.readouterr().out
    assert main([*words, "pipeline.values.n_gamas=77"]) == 2
    assert "pipeline.values has no n_gamas, did you mean 'n_gammas'?" in capsys.readouterr().err
    assert main([*words, "pipeline.values=77"]) == 2
    assert main([*words, "pipeline.values.n_gammas=many"]) == 2
    assert "n_showers is 'many'" in capsys.readouterr().err
