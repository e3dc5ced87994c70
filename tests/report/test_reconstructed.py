"""Numbers, curves and tables of DL2b stores: against NumPy, scikit-learn and pyirf."""

import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from astri_gpu.config import ReportConfig
from astri_gpu.errors import AstriError
from astri_gpu.report.binned import Axis, spread_of_counts
from astri_gpu.report.numbers import summary
from astri_gpu.report.reconstructed import RATIO, SCORE
from astri_gpu.report.resolution import energy_spreads
from astri_gpu.report.separation import area_under, roc, separation_numbers, separations
from astri_gpu.report.tables import TABLES
from astri_gpu.report.trained import importances_of
from astri_gpu.stages import report
from astri_gpu.store import open_store

CAMERA = "ASTRICam"
PICTURES = {"scores.png", "energy.png", "direction.png", "importances.png"}
DL2A = {
    "effective_area.png",
    "errors.png",
    "event.png",
    "overview.png",
    "parameters.png",
    "report.html",
    "summary.json",
}
COS_ALT = np.cos(np.deg2rad(70))  # of the made-up sources


def config(paths, output, **options):
    names = [str(path) for path in paths]
    return ReportConfig(
        input=names, output=str(output), **{"dpi": 30, "progress": False, **options}
    )


def columns_of(path):
    """Return the columns of the reconstructed events, and truth, as plain arrays."""
    store = open_store(path)
    shower = store.read("dl0/event/event_type") == 32
    reco = store.read_table("dl2/event")
    use = shower & reco["reco_is_valid"]
    columns = {name: values[use] for name, values in reco.items()}
    columns["true_energy"] = store.read("simulation/event/true_energy")[use]
    core = (store.read(f"simulation/event/true_core_{axis}")[use] for axis in "xy")
    place = (store.read(f"instrument/telescope/{axis}").mean() for axis in "xy")
    columns["distance"] = np.hypot(*(a - b for a, b in zip(core, place, strict=True)))
    return columns


def error_of(columns, prefix):
    """Return the angle to the made-up source, small enough to be flat."""
    return np.hypot(columns[f"{prefix}_alt"] - 70, columns[f"{prefix}_az"] * COS_ALT)


def test_numbers_equal_those_of_the_columns(collected, stores):
    (sample,) = collected(stores["gamma_reco"])
    numbers = summary([sample], 5)["gamma"]["reconstruction"]
    columns = columns_of(stores["gamma_reco"])
    n_events = len(columns["true_energy"])
    assert numbers["events"] == n_events == 379  # 400 less a pedestal and 20 invalid ones
    assert numbers["models"] == "forests.skops"
    relative = columns["reco_energy"] / columns["true_energy"] - 1
    energetic = columns["true_energy"] >= 10
    assert numbers["energy_bias"] == pytest.approx(np.median(relative), abs=0.01)
    low, high = np.quantile(relative[energetic], [0.158655, 0.841345])
    assert numbers["energy_resolution_above_10_tev"] == pytest.approx((high - low) / 2, rel=0.03)
    error = error_of(columns, "reco")
    assert numbers["direction_68_deg"] == pytest.approx(np.quantile(error, 0.68), rel=0.03)
    stereo = columns["stereo_is_valid"]
    assert numbers["events_with_geometry"] == stereo.sum()
    for name, prefix in (("merged", "reco"), ("geometry", "stereo"), ("displacement", "disp")):
        expected = np.quantile(error_of(columns, prefix)[stereo], 0.68)
        found = numbers["direction_68_deg_with_geometry"][name]
        assert found == pytest.approx(expected, rel=0.03)
    for group in numbers["by_group"][1:5]:
        chosen = columns["event_quality"] == int(group["events_of"].split()[1])
        assert group["events"] == chosen.sum()
        assert group["direction_68_deg"] == pytest.approx(
            np.quantile(error[chosen], 0.68), rel=0.05
        )
    well = (columns["reco_n_tels"] >= 3) & (columns["distance"] < 400)
    assert numbers["by_group"][5]["events"] == well.sum()
    within = numbers["share_within_expected_error"]
    assert within["direction"]["share"] == (error <= columns["reco_direction_uncert"]).mean()
    deviation = np.abs(columns["reco_energy"] - columns["true_energy"])
    assert within["energy"]["share"] == (deviation <= columns["reco_energy_uncert"]).mean()
    assert sum(row["events"] for row in numbers["by_energy"]) == n_events
    (offset,) = numbers["by_offset"]  # the pointing is 1.2 deg away
    assert offset["offset_deg"] == [1.0, 1.5]
    assert offset["direction_68_deg"] == numbers["direction_68_deg"]
    assert sample.reco.migration.sum() == n_events
    assert np.allclose(
        sample.reco.migration.sum(axis=1),
        np.histogram(columns["true_energy"], sample.energy_edges)[0],
    )


def test_resolutions_equal_those_of_pyirf(collected, stores, peers):
    """Both with pyirf's own functions on the unbinned columns."""
    import astropy.units as u
    from astropy.table import QTable
    from pyirf.benchmarks import angular_resolution, energy_bias_resolution

    (sample,) = collected(stores["gamma_reco"])
    columns = columns_of(stores["gamma_reco"])
    events = QTable(
        {
            "true_energy": columns["true_energy"] * u.TeV,
            "reco_energy": columns["reco_energy"].astype(float) * u.TeV,
            "theta": error_of(columns, "reco") * u.deg,
        }
    )
    edges = sample.merged_edges(2)
    energy = energy_bias_resolution(events, edges * u.TeV)
    angle = angular_resolution(events, edges * u.TeV, quantile=0.68)
    spreads = energy_spreads(sample, 2)
    rows = {
        row["energy_tev"][0]: row
        for row in summary([sample], 2)["gamma"]["reconstruction"]["by_energy"]
    }
    compared = 0
    for row, spread in enumerate(spreads):
        if spread.entries < 20:
            continue
        compared += 1
        assert spread.entries == energy["n_events"][row]
        assert spread.median == pytest.approx(energy["bias"][row], abs=0.02)
        assert spread.half_width == pytest.approx(energy["resolution"][row], rel=0.06)
        found = rows[edges[row]]["direction_68_deg"]
        assert found == pytest.approx(angle["angular_resolution_68"][row].to_value("deg"), rel=0.06)
    assert compared == 5


def test_area_under_the_roc_equals_that_of_scikit_learn(collected, stores):
    samples = collected(stores["gamma_reco"], stores["proton_reco"])
    events, images = separations(samples, 5)
    assert (events.level, images.level) == ("event", "image")
    scores = [columns_of(stores[f"{kind}_reco"])["gammaness"] for kind in ("gamma", "proton")]
    assert (events.n_signal, events.n_background) == tuple(map(len, scores))
    truth = np.repeat([1, 0], [len(scores[0]), len(scores[1])])
    expected = roc_auc_score(truth, np.concatenate(scores))
    assert events.auc == pytest.approx(expected, abs=1e-4)
    assert np.trapezoid(events.signal_share, events.background_share) == pytest.approx(events.auc)
    quality, cut = events.best_quality
    kept = [(values >= cut).mean() for values in scores]
    assert quality == pytest.approx(kept[0] / np.sqrt(kept[1]), rel=1e-6)
    store = open_store(stores["gamma_reco"])
    table = f"dl2/image/{CAMERA}"
    use = store.read(f"{table}/tel_is_valid") & (store.read(f"{table}/event_index") > 0)
    assert images.n_signal == use.sum()
    by_energy = separation_numbers([events])[0]["by_reco_energy"]
    assert 0 < sum(row["n_signal"] for row in by_energy) <= events.n_signal
    low, high = by_energy[3]["energy_tev"]
    inside = []
    for kind in ("gamma", "proton"):
        columns = columns_of(stores[f"{kind}_reco"])
        energy = columns["reco_energy"]
        inside.append(columns["gammaness"][(energy >= low) & (energy < high)])
    truth = np.repeat([1, 0], [len(inside[0]), len(inside[1])])
    expected = roc_auc_score(truth, np.concatenate(inside))
    assert by_energy[3]["auc"] == pytest.approx(expected, abs=1e-3)


def test_ties_count_half():
    signal, background = np.array([0.0, 1, 5, 4]), np.array([6.0, 3, 5, 0])
    values = np.concatenate(
        [np.repeat(np.arange(4), counts.astype(int)) for counts in (signal, background)]
    )
    truth = np.repeat([1, 0], [10, 14])
    assert area_under(signal, background)[0] == pytest.approx(roc_auc_score(truth, values))
    curve = roc(signal, background)
    np.testing.assert_allclose(curve[0], [0, 0.4, 0.9, 1, 1])
    np.testing.assert_allclose(curve[1], np.array([0, 0, 5, 8, 14]) / 14)
    assert np.isnan(area_under(signal, np.zeros(4))).all()
    assert area_under(np.array([0.0, 3]), np.array([3.0, 0]))[0] == 1


def test_error_of_the_area_is_the_scatter_of_repetitions():
    rng = np.random.default_rng(5)
    areas, errors = [], []
    for _ in range(300):
        found = area_under(SCORE.count(rng.beta(3, 1, 150)), SCORE.count(rng.beta(1, 2, 100)))
        areas.append(found[0])
        errors.append(found[1])
    assert np.mean(errors) == pytest.approx(np.std(areas), rel=0.25)


def test_spread_of_a_normal_distribution_and_its_errors():
    rng = np.random.default_rng(6)
    axis = Axis("x", "", -10, 10, 4000)
    found = [spread_of_counts(axis.count(rng.normal(1, 2, 1000)), axis) for _ in range(200)]
    medians = np.array([entry.median for entry in found])
    widths = np.array([entry.half_width for entry in found])
    assert medians.mean() == pytest.approx(1, abs=0.02)
    assert widths.mean() == pytest.approx(2, abs=0.02)
    errors = np.mean([(entry.median_error, entry.half_width_error) for entry in found], axis=0)
    assert errors[0] == pytest.approx(medians.std(), rel=0.2)
    assert errors[1] == pytest.approx(widths.std(), rel=0.2)
    assert np.isnan(spread_of_counts(np.zeros(RATIO.n_bins), RATIO).half_width)


def test_order_of_blocks_does_not_matter(collected, stores, monkeypatch):
    paths = stores["gamma_reco"], stores["proton_reco"]
    whole = collected(*paths)
    blocks = type(open_store(paths[0])).blocks

    def small(self, path):
        for start, stop in blocks(self, path):
            yield from ((first, min(first + 37, stop)) for first in range(start, stop, 37))

    monkeypatch.setattr("astri_gpu.store.Store.blocks", small)
    parts = collected(*paths)
    assert json.dumps(summary(parts, 5)) == json.dumps(summary(whole, 5))
    numbers = [separation_numbers(separations(samples, 5)) for samples in (parts, whole)]
    assert numbers[0] == numbers[1]


@pytest.fixture(scope="module")
def made(stores, tmp_path_factory):
    """Return the summary of a report on gammas and protons."""
    paths = [stores["gamma_reco"], stores["proton_reco"]]
    return report.run(config(paths, tmp_path_factory.mktemp("made") / "report"))


def test_report_and_its_tables(made):
    from astropy.table import QTable

    folder = made.path
    assert {entry.name for entry in folder.iterdir()} == {*DL2A, *PICTURES, *TABLES}
    record = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert "thrown spectrum" in record["note"]
    assert set(record["tables"]) == set(TABLES)
    events, images = record["separation"]
    assert 0.8 < events["auc"] < 1
    assert images["level"] == "image"
    read = {name: QTable.read(folder / name, format="ascii.ecsv") for name in TABLES}
    numbers = made.numbers["gamma"]["reconstruction"]
    energy = read["energy.ecsv"]
    of_all = energy[(energy["sample"] == "gamma") & (energy["selection"] == "all events")]
    assert of_all["energy_low"].unit == "TeV"
    for row, expected in zip(of_all, numbers["by_energy"], strict=True):
        assert row["energy_low"].to_value("TeV") == expected["energy_tev"][0]
        np.testing.assert_equal(row["resolution"], expected["energy_resolution"])
    direction = read["direction.ecsv"]
    assert direction["containment_68"].unit == "deg"
    assert set(direction["estimate"]) == {"merged", "geometry", "displacement"}
    offset = read["direction_offset.ecsv"]
    assert offset["offset_low"].unit == "deg"
    assert read["migration.ecsv"]["events"].sum() == sum(
        entry["reconstruction"]["events"] for entry in made.numbers.values()
    )
    curve = read["roc.ecsv"]
    curve = curve[curve["level"] == "event"]
    assert (curve["threshold"][0], curve["signal_share"][0]) == (1, 0)
    assert (curve["threshold"][-1], curve["signal_share"][-1]) == (0, 1)
    assert read["importances.ecsv"]["importance"].max() == 0.25
    text = (folder / "report.html").read_text(encoding="utf-8")
    for name in (*PICTURES, *TABLES):
        assert name in text
    assert "forests.skops" in text
    assert "1,234 images of 567 events (gamma). Images pass: hillas_intensity &gt; 50." in text
    assert "these very events" not in text
    assert f"{events['auc']:.4f}" in text


def test_a_report_of_less_takes_the_place_of_one_of_more(made, stores, tmp_path):
    folder = tmp_path / "report"
    shutil.copytree(made.path, folder)
    report.run(config([stores["unknown"]], folder, overwrite=True))
    assert {entry.name for entry in folder.iterdir()} == DL2A


def test_what_does_not_belong_together_is_apart(collected, stores, make_store, tmp_path):
    """Before and after reconstruction, and reconstructed with other models."""
    other = make_store(
        tmp_path / "other.zarr",
        "proton",
        8,
        n_events=50,
        models={"path": "b.skops", "checksum": "sha256:b"},
    )
    samples = collected(stores["gamma"], stores["gamma_reco"], other)
    assert [sample.label for sample in samples] == ["gamma (gamma)", "gamma (gamma_reco)", "proton"]
    assert [sample.reco is None for sample in samples] == [True, False, False]
    assert separations(samples, 5) == []
    same = collected(stores["proton_reco"], stores["gamma_reco"])
    assert [entry.signal.label for entry in separations(same, 5)] == ["gamma", "gamma"]


@pytest.mark.parametrize(
    "models",
    [
        {},
        {"cameras": None, "array": [1], "checksum": 3},
        {"cameras": {"A": {"image": {"energy": {"importances": {"x": None}}}}}},
        {"array": {"energy": {"importances": {"a": float("inf"), "b": "c", "d": 0.5}}}},
    ],
    ids=["empty", "other types", "no numbers", "some numbers"],
)
def test_odd_descriptions_of_models(make_store, collected, tmp_path, models):
    path = make_store(tmp_path / "odd.zarr", "gamma", 9, n_events=30, models=models)
    (sample,) = collected(path)
    found = importances_of([sample])
    assert found == ([("models", "array/energy", {"d": 0.5})] if "d" in str(models) else [])


def test_store_without_reconstructed_events(make_store, tmp_path):
    models = {"path": "<b>.skops", "checksum": "a"}
    path = make_store(tmp_path / "one.zarr", "gamma", 5, n_events=1, models=models)  # a pedestal
    folder = tmp_path / "report"
    numbers = report.run(config([path], folder)).numbers["gamma"]["reconstruction"]
    assert numbers["events"] == 0
    assert numbers["share_within_expected_error"] == {"direction": None, "energy": None}
    pictures = PICTURES - {"importances.png"}  # of the four, and no event to show
    assert {entry.name for entry in folder.iterdir()} == {
        *(DL2A - {"event.png"}),
        *pictures,
        "gammaness.ecsv",
    }
    assert "<b>" not in (folder / "report.html").read_text(encoding="utf-8")


def test_report_on_what_was_trained_on_says_so(make_store, stores, tmp_path):
    models = open_store(stores["gamma_reco"]).attrs["models"]
    path = make_store(tmp_path / "seen.zarr", "gamma", 3, n_events=5, models=models, source="old")
    folder = tmp_path / "report"
    result = report.run(config([path], folder))
    assert result.numbers["gamma"]["reconstruction"]["trained_on"] == ["seen.zarr"]
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "trained on these very events (seen.zarr)" in text


def test_damaged_store_is_a_sentence(stores, tmp_path):
    copy = tmp_path / "damaged.zarr"
    shutil.copytree(stores["gamma_reco"], copy)
    shutil.rmtree(copy / "dl2" / "event" / "gammaness")
    with pytest.raises(AstriError, match="has no 'dl2/event/gammaness'"):
        report.run(config([copy], tmp_path / "report"))
    assert not (tmp_path / "report").exists()
