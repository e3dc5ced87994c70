"""Exported files in ctapipe's own tools: processing, merging, training, applying, looking."""

import numpy as np
import pytest

from astri_gpu.io import ctapipe_model as model
from astri_gpu.io import ctapipe_model_dl2 as dl2
from astri_gpu.io.ctapipe_export import export_store

pytestmark = [
    pytest.mark.peers,
    # Warnings of ctapipe, scikit-learn and astropy are theirs.
    pytest.mark.filterwarnings("ignore"),
]

FEATURES = [
    "hillas_intensity",
    "hillas_length",
    "hillas_width",
    "area",
    "leakage_intensity_width_2",
    "morphology_n_pixels",
    "HillasReconstructor_tel_impact_distance",
    "HillasReconstructor_h_max",
    "n_telescopes_hillas_reconstructor",
]
N_REPROCESSED = 60  # events
QUALITY = [
    ["HillasValid", "HillasReconstructor_is_valid"],
    ["enough intensity", "hillas_intensity > 50"],
    ["enough pixels", "morphology_n_pixels > 3"],
]


@pytest.fixture(autouse=True)
def _peers(peers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # ctapipe's tools write their provenance log here


@pytest.fixture(scope="module")
def gamma(exported):
    return exported["gamma"].file


def tool(name, *arguments, config=None):
    """Run one of ctapipe's tools in this process; raise where it fails."""
    from importlib import import_module

    from ctapipe.core import run_tool
    from traitlets.config import Config

    module, _, cls = name.rpartition(".")
    made = getattr(import_module(f"ctapipe.tools.{module}"), cls)()
    if config is not None:
        made.update_config(Config(config))
    run_tool(made, argv=[str(word) for word in (*arguments, "--log-level=ERROR")], raises=True)


def columns(path, table, n_rows=None):
    """Return (the first rows of) a table of a file."""
    import tables

    with tables.open_file(path) as file:
        return file.get_node(table)[:n_rows]


def both(ours, theirs, table):
    """Return the table of both files, as long as the second, which has the first events only."""
    second = columns(theirs, table)
    assert len(second)
    return columns(ours, table, len(second)), second


# ctapipe's own defaults are those of experiment=ctapipe, with which the store was processed.
@pytest.fixture(scope="module")
def reprocessed(gamma, tmp_path_factory):
    """Return the file that ctapipe-process makes of the exported images."""
    output = tmp_path_factory.mktemp("reprocessed") / "gamma.h5"
    tool(
        "process.ProcessorTool",
        f"--input={gamma}",
        f"--output={output}",
        "--recompute-dl1",
        "--recompute-dl2",
        "--write-images",
        "--write-parameters",
        "--write-showers",
        "--no-progress",
        f"--max-events={N_REPROCESSED}",
    )
    return output


def test_ctapipe_process_finds_our_parameters(gamma, reprocessed):
    n_compared = 0
    for tel_id in range(1, 10):
        path = model.telescope_table(model.DL1_PARAMETERS, tel_id)
        ours, theirs = both(gamma, reprocessed, path)
        np.testing.assert_array_equal(ours["event_id"], theirs["event_id"])
        for field in model.PARAMETER_COLUMNS[3:-1]:
            if field.column.startswith(("timing", "peak_time")):
                continue  # this camera has no samples: we leave times open, ctapipe takes zeros
            flat = "skewness" in field.column or "kurtosis" in field.column
            np.testing.assert_allclose(
                ours[field.column],
                theirs[field.column],
                rtol=2e-4,
                atol=1e-3 if flat else 1e-5,
                err_msg=field.column,
            )
            n_compared += np.isfinite(theirs[field.column]).sum()
        path = model.telescope_table(model.DL1_IMAGES, tel_id)
        ours, theirs = both(gamma, reprocessed, path)
        for name in ("image", "image_mask"):
            np.testing.assert_array_equal(ours[name], theirs[name])
    assert n_compared > 5_000


def test_ctapipe_process_finds_our_showers(gamma, reprocessed):
    path = f"{dl2.DL2_GEOMETRY}/{dl2.ALGORITHM}"
    ours, theirs = both(gamma, reprocessed, path)
    assert ours.dtype.names == theirs.dtype.names
    assert ours[f"{dl2.ALGORITHM}_is_valid"].sum() > 40
    for field in dl2.GEOMETRY_COLUMNS[2:]:
        got, want = ours[field.column], theirs[field.column]
        if got.dtype.kind == "b":
            np.testing.assert_array_equal(got, want, err_msg=field.column)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=2e-2, err_msg=field.column)
    for tel_id in range(1, 10):
        path = model.telescope_table(f"{dl2.DL2_IMPACT}/{dl2.ALGORITHM}", tel_id)
        ours, theirs = both(gamma, reprocessed, path)
        for field in dl2.IMPACT_COLUMNS:
            np.testing.assert_allclose(ours[field.column], theirs[field.column], atol=0.1)


def test_ctapipe_process_keeps_what_it_does_not_compute(gamma, reprocessed):
    """Truth, triggers, run header and the thrown showers come out as they went in."""
    for path in (
        model.SIMULATION_SHOWER,
        model.TRIGGER,
        model.TELESCOPE_TRIGGER,
        model.SIMULATION_RUN,
        model.SHOWER_DISTRIBUTION,
        model.OBSERVATION_BLOCK,
        model.SCHEDULING_BLOCK,
        model.telescope_table(model.SIMULATION_IMPACT, 1),
        model.telescope_table(model.SIMULATION_IMAGES, 1),
        model.telescope_table(model.POINTING, 1),
    ):
        ours, theirs = both(gamma, reprocessed, path)
        assert ours.dtype.names == theirs.dtype.names
        for name in ours.dtype.names:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{path} {name}")


@pytest.fixture(scope="module")
def merged(exported, tmp_path_factory):
    output = tmp_path_factory.mktemp("merged") / "merged.h5"
    files = [exported["gamma"].file, exported["proton"].file]
    tool("merge.MergeTool", *files, f"--output={output}")
    return output


def test_merge(exported, merged):
    from ctapipe.io import TableLoader

    lengths = []
    for path in (exported["gamma"].file, exported["proton"].file, merged):
        with TableLoader(path) as loader:
            lengths.append((len(loader), len(loader.read_telescope_events(dl1_images=True))))
            entries = loader.read_shower_distribution()["n_entries"]
    assert lengths[2] == tuple(np.add(lengths[0], lengths[1]))
    assert entries.tolist() == [150, 150]
    with TableLoader(merged) as loader:
        assert len(set(loader.read_observation_information()["obs_id"])) == 2


@pytest.fixture(scope="module")
def models(exported, merged, tmp_path_factory):
    """Return trained models: energy, particle, direction."""
    folder = tmp_path_factory.mktemp("models")
    common = {
        "features": FEATURES,
        "QualityQuery": {"quality_criteria": QUALITY},
        "FeatureGenerator": {
            "features": [
                ["area", "hillas_width * hillas_length"],
                [
                    "n_telescopes_hillas_reconstructor",
                    "subarray.multiplicity(HillasReconstructor_telescopes)",
                ],
            ]
        },
        "n_jobs": 1,
    }
    forest = {"n_estimators": 3, "max_depth": 4}
    folds = {"n_cross_validations": 2}
    gamma, proton = exported["gamma"].file, exported["proton"].file
    tool(
        "train_energy_regressor.TrainEnergyRegressor",
        f"--input={gamma}",
        f"--output={folder / 'energy.pkl'}",
        config={
            "TrainEnergyRegressor": {
                "CrossValidator": folds,
                "EnergyRegressor": {
                    **common,
                    "model_cls": "RandomForestRegressor",
                    "model_config": forest,
                    "log_target": True,
                },
            }
        },
    )
    tool(
        "train_particle_classifier.TrainParticleClassifier",
        f"--signal={gamma}",
        f"--background={proton}",
        f"--output={folder / 'particle.pkl'}",
        config={
            "TrainParticleClassifier": {
                "CrossValidator": folds,
                "ParticleClassifier": {
                    **common,
                    "model_cls": "RandomForestClassifier",
                    "model_config": forest,
                },
            }
        },
    )
    tool(
        "train_disp_reconstructor.TrainDispReconstructor",
        f"--input={gamma}",
        f"--output={folder / 'disp.pkl'}",
        config={
            "TrainDispReconstructor": {
                "CrossValidator": folds,
                "DispReconstructor": {
                    **common,
                    "norm_cls": "RandomForestRegressor",
                    "norm_config": forest,
                    "sign_cls": "RandomForestClassifier",
                    "sign_config": forest,
                    "log_target": True,
                },
            }
        },
    )
    return [folder / name for name in ("energy.pkl", "particle.pkl", "disp.pkl")]


def test_trained_models_are_applied(merged, models, tmp_path):
    from ctapipe.io import TableLoader

    output = tmp_path / "applied.h5"
    tool(
        "apply_models.ApplyModels",
        f"--input={merged}",
        f"--output={output}",
        *(f"--reconstructor={path}" for path in models),
        "--n-jobs=1",
    )
    with TableLoader(output) as loader:
        events = loader.read_subarray_events()
    valid = np.asarray(events["RandomForestRegressor_is_valid"])
    assert valid.sum() > 200
    energy, truth = (
        np.log10(np.asarray(events[name])[valid])  # TeV
        for name in ("RandomForestRegressor_energy", "true_energy")
    )
    gamma = np.asarray(events["true_shower_primary_id"][valid]) == 0
    assert np.std((energy - truth)[gamma]) < np.std(truth[gamma])
    score = np.asarray(events["RandomForestClassifier_prediction"][valid])
    assert np.median(score[gamma]) > np.median(score[~gamma])
    assert "disp_alt" in events.colnames


@pytest.mark.parametrize("flat", [["--flat"], []], ids=["flat", "tree"])
def test_fileinfo_says_what_is_in_it(gamma, capsys, monkeypatch, flat):
    from ctapipe.tools.fileinfo import main

    monkeypatch.setattr("sys.argv", ["ctapipe-fileinfo", str(gamma), *flat])
    main()
    text = capsys.readouterr().out
    for word in ("DL1_IMAGES", "v7.1.0", "astri_gpu", "Simulation", "Fast model"):
        assert word in text


def test_real_monte_carlo_gives_the_file_that_ctapipe_makes(simtel, tmp_path):
    """The same sim_telarray file, once through ctapipe and once through ours."""
    from astri_gpu.config import compose
    from astri_gpu.stages import ingest, process

    source = simtel("gct_checs_muons.simtel.zst")
    tool(
        "process.ProcessorTool",
        f"--input={source}",
        f"--output={tmp_path / 'theirs.h5'}",
        "--write-images",
        "--write-parameters",
        "--write-showers",
        "--no-progress",
        "--SimTelEventSource.focal_length_choice=EFFECTIVE",
    )
    ingest.run(compose("ingest", [f"input='{source}'", f"output='{tmp_path}/dl0.zarr'"]))
    process.run(
        compose(
            "process",
            [
                f"input='{tmp_path}/dl0.zarr'",
                f"output='{tmp_path}/dl2.zarr'",
                "experiment=ctapipe",
                "backend=numpy",
                "images=true",
            ],
        )
    )
    export_store(tmp_path / "dl2.zarr", tmp_path / "ours.h5")
    import tables

    with (
        tables.open_file(tmp_path / "ours.h5") as ours,
        tables.open_file(tmp_path / "theirs.h5") as theirs,
    ):
        missing = {"image_statistics", "tel_event_statistics", "atmosphere_density_profile"}
        for table in theirs.walk_nodes("/", "Table"):
            path = table._v_pathname
            if missing & set(path.split("/")):
                continue
            compare_tables(ours.get_node(path), table)


# What is ours to say (who made it), what our stores do not keep, and fits that start at random.
DIFFERENT = {"simtel_version", "n_mirror_tiles", "name", "type", "tel_description", "optics_name"}
LOOSE = ("timing_", "peak_time", "true_hillas", "true_leak", "true_conc", "true_morph", "true_int")


def compare_tables(ours, theirs):
    """Compare names, units and numbers of two tables."""
    path = theirs._v_pathname
    assert ours.colnames == theirs.colnames, path
    assert len(ours) == len(theirs), path
    for position, name in enumerate(theirs.colnames):
        for key in ("NAME", "UNIT", "TRANSFORM", "TIME_SCALE", "TIME_FORMAT", "ENUM"):
            full = model.attribute(position, key)
            assert (full in ours.attrs) == (full in theirs.attrs), f"{path} {name} {key}"
            if full in ours.attrs:
                assert ours.attrs[full] == theirs.attrs[full], f"{path} {name} {key}"
        got, want = ours.col(name), theirs.col(name)
        assert got.shape[1:] == want.shape[1:], f"{path} {name}"
        if name in DIFFERENT or name.startswith(LOOSE):
            continue
        if want.dtype.kind in "fc":
            np.testing.assert_allclose(
                got, want, rtol=2e-4, atol=1e-3, equal_nan=True, err_msg=f"{path} {name}"
            )
        else:
            np.testing.assert_array_equal(got, want, err_msg=f"{path} {name}")
