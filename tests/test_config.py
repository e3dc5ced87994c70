"""Every config file composes, and every wrong value is refused in one sentence."""

import dataclasses
from importlib.resources import files

import pytest
import yaml

from astri_gpu.config import (
    STAGES,
    CleaningConfig,
    InfoConfig,
    IngestConfig,
    ProcessConfig,
    SimulateConfig,
    compose,
)
from astri_gpu.errors import UsageError
from astri_gpu.options import REQUIRED, specs
from astri_gpu.overrides import group_files

PATHS = ["input=a.zarr", "output=b.zarr"]


def paths_for(stage):
    required = [spec.key for spec in specs(STAGES[stage].config) if spec.default == REQUIRED]
    return [f"{key}=x" for key in required]


def group_choices():
    for stage, description in STAGES.items():
        for group in description.groups:
            for choice in group_files(group):
                yield pytest.param(stage, group, choice, id=f"{stage}-{group}-{choice}")


@pytest.mark.parametrize("stage", STAGES)
def test_stage_composes_to_the_defaults_of_its_class(stage):
    required = {key: "x" for key, _, _ in (word.partition("=") for word in paths_for(stage))}
    composed, plain = compose(stage, paths_for(stage)), STAGES[stage].config(**required)
    if stage == "run":
        composed.pipeline = plain.pipeline  # a chain lives in its file only
    assert composed == plain


@pytest.mark.parametrize(("stage", "group", "choice"), list(group_choices()))
def test_every_group_file_composes(stage, group, choice):
    config = compose(stage, [*paths_for(stage), f"{group}={choice}"])
    assert isinstance(config, STAGES[stage].config)


def test_every_config_folder_is_a_group_of_a_stage():
    folders = {
        entry.name
        for entry in files("astri_gpu.configs").iterdir()
        if entry.is_dir() and not entry.name.startswith("__")
    }
    assert folders == {group for stage in STAGES.values() for group in stage.groups}


@pytest.mark.parametrize("stage", STAGES)
def test_every_group_file_has_a_description(stage):
    for group in STAGES[stage].groups:
        assert all(group_files(group).values())


MACHINE = ("backend", "execution")  # groups that are no part of what is simulated
SIMULATION_GROUPS = [group for group in STAGES["simulate"].groups if group not in MACHINE]


@pytest.mark.parametrize("group", SIMULATION_GROUPS)
def test_default_file_of_a_simulation_group_says_all_of_its_class(group):
    """Who opens the file sees every value of the production, and they are those of Python."""
    text = (files("astri_gpu.configs") / "simulate.yaml").read_text(encoding="utf-8")
    (choice,) = [item[group] for item in yaml.safe_load(text)["defaults"] if group in item]
    content = (files("astri_gpu.configs") / group / f"{choice}.yaml").read_text(encoding="utf-8")
    section = getattr(SimulateConfig(output="x"), group)
    assert yaml.safe_load(content) == dataclasses.asdict(section)


@pytest.mark.parametrize(
    "path",
    ["array/mini_array", "atmosphere/teide", "spectrum/standard", "optics/astri", "camera/dark"],
)
def test_values_that_are_not_published_are_labelled(path):
    text = (files("astri_gpu.configs") / f"{path}.yaml").read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any("our choice" in line for line in comments)


def test_the_command_of_a_production_composes():
    config = compose(
        "simulate",
        [
            *("production=proton", "n_showers=200000", "seed=1", "output=p.zarr"),
            *("camera=moon", "view=diffuse", "array=single", "spectrum=e2", "shower=draft"),
            *("view.zenith_deg=40", "calibration_events=standard"),
        ],
    )
    assert isinstance(config, SimulateConfig)
    assert (config.production, config.n_showers, config.seed) == ("proton", 200_000, 1)
    assert config.camera.night_sky_mhz == 250
    assert (config.view.cone_max_deg, config.view.zenith_deg) == (6, 40)
    assert (config.array.layout, config.spectrum.index) == ("single", -2)
    assert config.shower.tables == "draft"
    assert config.calibration_events.n_pedestal > 0
    assert config.view.scatter_radius_m is None


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("production=photon", r"production is 'photon': it must be one of gamma, electron"),
        ("view.zenith_deg=75", r"view\.zenith_deg is 75: it must be 0 to 60 \(deg\)"),
        ("spectrum.energy_max_tev=5000", r"above 0 and at most 1000 \(TeV\)"),
        ("n_showers=0", r"n_showers is 0: it must be 1 to"),
        ("camera=mon", r"camera=mon does not exist: .* did you mean 'moon'\?"),
        ("zenith_deg=10", r"did you mean 'view\.zenith_deg'\?"),
        ("source=corsika", r"input=\.\.\. belongs to source=corsika"),
        ("n_parts=0", r"n_parts is 0: it must be 1 to 9999 \(stores\)"),
        ("n_workers=4", r"did you mean 'execution\.n_workers'\?"),
        ("input=showers.dat", r"input=\.\.\. belongs to source=corsika"),
        ("experiment=ctapipe", r"unknown option experiment"),
    ],
)
def test_refused_productions(word, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        compose("simulate", ["output=x", word])
    assert "\n" not in str(caught.value)


def test_experiment_ctapipe_is_ctapipes_default():
    config = compose("process", [*PATHS, "experiment=ctapipe"])
    cleaning, calibration, stereo = config.cleaning, config.calibration, config.stereo
    assert (cleaning.method, cleaning.picture_pe, cleaning.boundary_pe) == ("tailcuts", 10, 5)
    assert (cleaning.min_picture_neighbours, cleaning.keep_isolated) == (2, False)
    assert (cleaning.diagonal_neighbours, cleaning.min_core_pixels) == (False, 0)
    assert (cleaning.dilate_rows, cleaning.time_limit_ns) == (0, 0)
    assert calibration.extractor == "neighbour_peak"
    assert (calibration.window_width, calibration.window_shift) == (7, 3)
    assert calibration.local_weight == 0
    assert calibration.integration_correction
    assert (stereo.method, stereo.min_intensity_pe, stereo.min_width_deg) == ("planes", 50, 0)
    assert stereo.min_pixels == 4


def test_experiment_wins_over_a_group_but_not_over_a_value():
    config = compose("process", [*PATHS, "experiment=ctapipe", "cleaning.picture_pe=8"])
    assert (config.cleaning.picture_pe, config.cleaning.boundary_pe) == (8, 5)


def test_a_section_given_on_the_command_line_replaces_only_itself():
    config = compose("process", [*PATHS, "backend=numpy"])
    assert config.backend.name == "numpy"
    assert config.cleaning == ProcessConfig(input="a", output="b").cleaning


def test_lists_and_null():
    config = compose("ingest", ["input=[a,b]", "output=c", "allowed_telescopes=[1,3]"])
    assert config.inputs() == ["a", "b"]
    assert config.allowed_telescopes == [1, 3]
    assert config.max_events is None
    assert compose("ingest", [*PATHS, "max_events=7"]).max_events == 7


REFUSED = {
    "cleaning.picture_pe=-3": r"cleaning\.picture_pe is -3: it must be above 0 \(p\.e\.\)",
    "cleaning.picture_pe=0": r"cleaning\.picture_pe is 0: it must be above 0",
    "cleaning.picture_pe=nan": r"cleaning\.picture_pe is nan",
    "cleaning.picture_pe=abc": r"cleaning\.picture_pe is 'abc': it must be a number",
    "cleaning.picture_pe=null": r"cleaning\.picture_pe is null: it needs a value",
    "cleaning.picture_pe=5,6": r"several values: add --multirun",
    "cleaning.picture_pe=[": r"cannot read cleaning\.picture_pe=\[",
    "cleaning.boundary_pe=20": r"boundary_pe is 20: it must be at most cleaning\.picture_pe \(6",
    "cleaning.min_picture_neighbours=9": r"is 9: it must be 0 to 8",
    "cleaning.method=mar": r"cleaning\.method is 'mar': .* did you mean 'mars'\?",
    "cleaning.pictur_pe=3": r"unknown option .*did you mean 'cleaning\.picture_pe'\?",
    "picture_pe=3": r"unknown option .*did you mean 'cleaning\.picture_pe'\?",
    "cleaning=astry": r"cleaning=astry does not exist: .* did you mean 'astri'\?",
    "parameters=x": r"parameters is not a value",
    "overwrit=true": r"did you mean 'overwrite'\?",
    "n_workers=4": r"unknown option n_workers, did you mean 'execution\.n_workers'\?",
    "execution.engine=dusk": r"must be one of local, dask",
    "execution.cluster=slurm": r"belongs to Dask: add execution\.engine=dask",
    "execution.address=tcp://a:1": r"execution\.address=\.\.\. belongs to Dask",
    "execution.walltime=soon": r"execution\.walltime is 'soon': it must be HH:MM:SS",
    "zzz=1": r"unknown option zzz: see --help",
    "+zzz=1": r"cannot be added or removed",
    "~cleaning": r"cannot be added or removed",
    "batch_size": r"batch_size has no value",
    "batch_size=0": r"batch_size is 0: it must be 1 to 1048576 \(images\)",
    "batch_size=1.5": r"batch_size is '1\.5': it must be a whole number",
    "images=maybe": r"images is 'maybe': it must be true or false",
    "exclude_telescopes=3": r"exclude_telescopes is not a list",
    "exclude_telescopes=[a]": r"exclude_telescopes\[0\] is 'a': it must be a whole number",
    "output=${nope}": r"output refers to \$\{nope\}, which is not an option",
    "input=5": r"input is '5': it must be a path",
    "input=[]": r"input is an empty list",
    "stereo.max_leakage=1.5": r"stereo\.max_leakage is 1\.5: it must be 0 to 1",
}


@pytest.mark.parametrize("word", REFUSED)
def test_refused_in_a_sentence(word):
    with pytest.raises(UsageError, match=REFUSED[word]) as caught:
        compose("process", [*PATHS, word])
    assert "\n" not in str(caught.value)


def test_misspelt_key_in_a_config_file_is_refused(tmp_path):
    (tmp_path / "cleaning").mkdir()
    (tmp_path / "cleaning" / "mine.yaml").write_text("picture: 5\n", encoding="utf-8")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    with pytest.raises(UsageError, match="picture"):
        compose("process", [*PATHS, search, "cleaning=mine"])


def test_own_config_files_are_found_through_the_search_path(tmp_path):
    (tmp_path / "cleaning").mkdir()
    (tmp_path / "cleaning" / "mine.yaml").write_text("picture_pe: 5.5\n", encoding="utf-8")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose("process", [*PATHS, search, "cleaning=mine"]).cleaning.picture_pe == 5.5


def test_slurm_needs_a_number_of_workers():
    assert compose("process", [*PATHS, "execution=slurm"]).execution.n_workers > 0
    with pytest.raises(UsageError, match="say how many workers to ask Slurm for"):
        compose("process", [*PATHS, "execution=slurm", "execution.n_workers=0"])


def test_missing_required_value():
    with pytest.raises(UsageError, match=r"input is missing: give input=\.\.\. \(DL0 store"):
        compose("process", ["output=b"])
    with pytest.raises(UsageError, match="output is missing"):
        IngestConfig(input="a")


def test_python_use_is_checked_too():
    with pytest.raises(UsageError, match="must be above 0"):
        CleaningConfig(picture_pe=-1)
    with pytest.raises(UsageError, match="must be a number"):
        CleaningConfig(picture_pe="6")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"second_boundary_pe is 4: .* cleaning\.boundary_pe"):
        CleaningConfig(method="mars", second_boundary_pe=4.0)
    assert InfoConfig(input="a").debug is False


def test_every_option_has_help():
    for stage in STAGES.values():
        assert all(spec.help for spec in specs(stage.config))


@pytest.mark.parametrize("stage", STAGES)
def test_no_option_has_the_name_of_a_folder_of_configurations(stage):
    """Hydra takes `name=value` for a choice of the folder, whatever the stage."""
    folders = {path.name for path in files("astri_gpu.configs").iterdir() if path.is_dir()}
    assert not folders & {spec.key for spec in specs(STAGES[stage].config)}
