"""The report: its numbers against NumPy on the same columns, its files, and its sentences."""

import html.parser
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astri_gpu.config import IngestConfig, ProcessConfig, ReportConfig, compose
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument.astri import mini_array
from astri_gpu.progress import Progress
from astri_gpu.report.binned import (
    Axis,
    quantile_of_counts,
    share_interval,
    spectrum_integral,
)
from astri_gpu.report.collect import DIRECTION, collect
from astri_gpu.report.numbers import effective_area, rates, solid_angle, summary
from astri_gpu.schema import TABLES
from astri_gpu.stages import ingest, process, report, simulate
from astri_gpu.store import create, open_store
from astri_gpu.store_layout import write_layout

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
MODEL = "Fast model for a test."
CAMERA = "ASTRICam"
RADIUS = 500.0
THROWN = 20_000
DTYPES = {"f": np.nan, "i": -1, "u": 0, "b": False}


def rows_of(table, n_rows, values):
    """Return all columns of a table of scalars, those that are not given empty."""
    columns = {}
    for name, entry in TABLES[table].items():
        if len(entry.dims) == 1:
            filler = DTYPES[np.dtype(entry.dtype).kind]
            columns[name] = np.asarray(values.get(name, np.full(n_rows, filler)), entry.dtype)
    return columns


def write_table(writer, path, table, n_rows, values, sizes):
    columns = {**rows_of(table, n_rows, values)}
    columns.update({name: data for name, data in values.items() if name not in columns})
    writer.table(path, list(columns), sizes=sizes).append(columns)


def make_store(path, kind, seed, *, n_events=400, thrown=True, charges=False, cone=0.0, model=True):
    """Write a DL2a store of made-up events on the built-in array; the truth is where zenith is 20.

    The first event is a pedestal with images, which no number of the report may count.
    """
    rng = np.random.default_rng(seed)
    layout = mini_array()
    n_tel, n_pixels = layout.n_telescopes, layout.cameras[0].geometry.n_pixels
    sizes = {"tel": n_tel, "pixel": n_pixels}
    energy = 10 ** rng.uniform(-0.5, 2, n_events)
    error = 0.08 * rng.rayleigh(size=n_events) / energy**0.25
    angle = rng.uniform(0, 2 * np.pi, n_events)
    core = rng.uniform(-200, 200, (2, n_events))
    per_event = rng.integers(1, n_tel + 1, n_events)
    valid = per_event > 1
    shower = np.arange(n_events) > 0
    n_images = int(per_event.sum())
    event_index = np.repeat(np.arange(n_events), per_event)
    tel_id = np.concatenate([np.sort(rng.permutation(n_tel)[:n]) + 1 for n in per_event])
    keys = {"event_index": event_index, "tel_id": tel_id}
    events = {"obs_id": np.full(n_events, 7), "event_id": np.arange(n_events)}
    intensity = 10 ** rng.normal(2.5, 0.4, n_images)
    intensity[rng.random(n_images) < 0.1] = np.nan
    images = {
        **keys,
        "hillas_intensity": intensity,
        "hillas_length": rng.gamma(4, 0.1, n_images),
        "hillas_width": rng.gamma(20, 0.006 if kind == "gamma" else 0.009, n_images),
        "astri_conc": rng.beta(2, 8, n_images),
        "hillas_fov_lon": rng.normal(0, 1, n_images),
        "hillas_fov_lat": rng.normal(0, 1, n_images),
        "hillas_psi": rng.uniform(-90, 90, n_images),
    }
    if charges:
        charge = rng.normal(0, 1, (n_images, n_pixels)).astype(np.float32)
        charge[:, 1000:1010] += 20
        images.update(charge=charge, mask=charge > 10)
    alt = 70 + error * np.cos(angle)
    az = error * np.sin(angle) / np.cos(np.deg2rad(70))
    attrs = {"data_level": "DL2a", "kind": kind, "n_events": n_events, "n_images": n_images}
    if model:
        attrs["simulation_model"] = MODEL
    with create(path, attrs=attrs) as writer:
        write_layout(writer, layout)
        pointing = {"array_alt": np.full(n_events, 70.0), "array_az": np.zeros(n_events)}
        write_table(
            writer,
            "dl0/event",
            "dl0/event",
            n_events,
            {
                **events,
                **pointing,
                "event_type": np.where(shower, 32, 2),
                "tel_mask": np.ones((n_events, n_tel), bool),
            },
            sizes,
        )
        where = {"pointing_alt": np.full(n_images, 70.0), "pointing_az": np.zeros(n_images)}
        write_table(
            writer,
            f"dl0/image/{CAMERA}",
            "dl0/image",
            n_images,
            {**keys, **where},
            sizes,
        )
        write_table(writer, f"dl1/image/{CAMERA}", "dl1/image", n_images, images, sizes)
        write_table(
            writer,
            "dl2/event",
            "dl2/event",
            n_events,
            {
                **events,
                "stereo_is_valid": valid,
                "stereo_alt": np.where(valid, alt, np.nan),
                "stereo_az": np.where(valid, az, np.nan),
                "stereo_core_x": np.where(valid, core[0] + 30 * error, np.nan),
                "stereo_core_y": core[1],
                "stereo_n_tels": per_event,
            },
            sizes,
        )
        write_table(
            writer,
            "simulation/event",
            "simulation/event",
            n_events,
            {
                **events,
                "true_energy": np.where(shower, energy, np.nan),
                "true_alt": np.where(shower, 70.0, np.nan),
                "true_az": np.where(shower, 0.0, np.nan),
                "true_core_x": core[0],
                "true_core_y": core[1],
            },
            sizes,
        )
        writer.set_attrs(
            "simulation",
            {
                "energy_range_min": 10**-0.5,
                "energy_range_max": 100.0,
                "spectral_index": -1.0,
                "max_scatter_range": RADIUS,
                "min_scatter_range": 0.0,
                "max_viewcone_radius": cone,
                "min_viewcone_radius": 0.0,
                "n_showers": THROWN,
                "shower_reuse": 1,
                "min_alt": 70.0,
                "partial": False,
            },
        )
        if thrown:
            edges = np.geomspace(1e-3, 1e3, 121)
            counts = np.zeros((2, 120))
            counts[:, 50:100] = THROWN / 100
            writer.write("simulation/thrown", "histogram", counts)
            writer.write("simulation/thrown", "energy_edges", edges)
            writer.write("simulation/thrown", "core_distance_edges", [0, 250, RADIUS])
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dl2")
    return {
        "gamma": make_store(folder / "gamma.zarr", "gamma", 1, charges=True, n_events=60),
        "more": make_store(folder / "gamma_2.zarr", "gamma", 2),
        "proton": make_store(folder / "proton.zarr", "proton", 3, cone=6.0),
        "unknown": make_store(folder / "unknown.zarr", "gamma", 4, thrown=False, model=False),
    }


def config(paths, output, **options):
    names = [str(path) for path in paths]
    return ReportConfig(
        input=names, output=str(output), **{"dpi": 30, "progress": False, **options}
    )


def collected(*paths):
    return collect(paths, Progress(None, "", ""))


def truth(path):
    """Return the columns that the numbers are checked with."""
    store = open_store(path)
    read = {name: store.read(f"simulation/event/true_{name}") for name in ("energy",)}
    shower = store.read("dl0/event/event_type") == 32
    index = store.read(f"dl1/image/{CAMERA}/event_index")
    intensity = store.read(f"dl1/image/{CAMERA}/hillas_intensity")
    use = np.isfinite(intensity) & shower[index]
    n_images = np.bincount(index[use], minlength=len(shower))
    valid = shower & store.read("dl2/event/stereo_is_valid")
    return store, read["energy"], shower, valid, n_images, use


def test_numbers_equal_those_of_the_columns(stores):
    (sample,) = collected(stores["more"])
    numbers = summary([sample], 5)["gamma"]
    store, _, shower, valid, n_images, use = truth(stores["more"])
    assert numbers["events"] == shower.sum()
    assert numbers["thrown"] == THROWN
    assert numbers["fraction_triggered"] == pytest.approx(shower.sum() / THROWN)
    assert numbers["images"] == use.sum()
    assert (
        numbers["telescope_triggers"]
        == store.n_rows(f"dl0/image/{CAMERA}")
        - (store.read(f"dl0/image/{CAMERA}/event_index") == 0).sum()
    )
    with_images = n_images[shower & (n_images > 0)]
    assert numbers["images_per_event"] == pytest.approx(with_images.mean())
    assert numbers["mono_image_share"] == pytest.approx((with_images == 1).sum() / use.sum())
    assert numbers["events_by_images"] == np.bincount(n_images[shower], minlength=10).tolist()
    assert numbers["reconstructed"] == valid.sum()
    error = np.hypot(
        (store.read("dl2/event/stereo_alt") - 70),
        store.read("dl2/event/stereo_az") * np.cos(np.deg2rad(70)),
    )[valid]
    assert numbers["direction_error_68_deg"] == pytest.approx(np.quantile(error, 0.68), rel=0.02)
    core = store.read("dl2/event/stereo_core_x") - store.read("simulation/event/true_core_x")
    assert numbers["core_error_68_m"] == pytest.approx(np.quantile(core[valid], 0.68), rel=0.02)
    for name, label in (("hillas_width", "WIDTH"), ("hillas_intensity", "SIZE")):
        values = store.read(f"dl1/image/{CAMERA}/{name}")[use]
        for share in (10, 50, 90):
            assert numbers["parameters"][label][f"q{share}"] == pytest.approx(
                np.quantile(values, share / 100), rel=0.015
            )


def test_effective_area_by_energy(stores):
    (sample,) = collected(stores["more"])
    _, energy, shower, _, _, _ = truth(stores["more"])
    value, low, high = effective_area(sample, sample.triggered, 5)
    edges = sample.merged_edges(5)
    np.testing.assert_allclose(edges, np.geomspace(1e-3, 1e3, 31))
    events = np.histogram(energy[shower], edges)[0]
    thrown = np.add.reduceat(sample.thrown, sample.merged(5))
    some = thrown > 0
    np.testing.assert_allclose(value[some], events[some] / thrown[some] * np.pi * RADIUS**2)
    assert np.isnan(value[~some]).all()
    assert (low[some] < value[some]).all()
    assert (value[some] < high[some]).all()
    table = summary([sample], 5)["gamma"]["by_energy"]
    assert len(table) == some.sum()
    assert sum(row["triggered"] for row in table) == shower.sum()


def test_rates_are_event_weights(stores):
    """The rate is the sum of flux / thrown density over the events, up to the width of the bins."""
    (sample,) = collected(stores["proton"])
    _, energy, shower, valid, _, _ = truth(stores["proton"])
    rate = rates(sample)
    density = THROWN / np.log(10**2.5) / energy[shower]  # thrown per TeV for E^-1
    area = np.pi * RADIUS**2 * 2 * np.pi * (1 - np.cos(np.deg2rad(6)))
    weights = 0.096 * energy[shower] ** -2.7 * area / density
    assert rate.array == pytest.approx(weights.sum(), rel=0.02)
    assert rate.array_error == pytest.approx(np.sqrt((weights**2).sum()), rel=0.03)
    assert rate.reconstructed == pytest.approx(weights[valid[shower]].sum(), rel=0.02)
    assert rate.telescope < rate.array
    assert solid_angle(sample) == pytest.approx(2 * np.pi * (1 - np.cos(np.deg2rad(6))))


def test_parts_of_a_production_are_one_sample(stores):
    gamma, more, both = (
        collected(stores["gamma"]),
        collected(stores["more"]),
        collected(stores["gamma"], stores["more"]),
    )
    assert [sample.label for sample in both] == ["gamma"]
    assert both[0].n_images == gamma[0].n_images + more[0].n_images
    np.testing.assert_array_equal(both[0].direction, gamma[0].direction + more[0].direction)
    np.testing.assert_array_equal(both[0].thrown, gamma[0].thrown + more[0].thrown)


def test_other_productions_of_a_particle_are_other_samples(stores):
    samples = collected(stores["gamma"], stores["unknown"], stores["proton"])
    assert [sample.label for sample in samples] == ["gamma (gamma)", "gamma (unknown)", "proton"]


def test_order_of_blocks_does_not_matter(stores, monkeypatch):
    whole = summary(collected(stores["more"]), 5)
    blocks = type(open_store(stores["more"])).blocks

    def small(self, path):
        for start, stop in blocks(self, path):
            yield from ((first, min(first + 37, stop)) for first in range(start, stop, 37))

    monkeypatch.setattr("astri_gpu.store.Store.blocks", small)
    assert json.dumps(summary(collected(stores["more"]), 5)) == json.dumps(whole)


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


def test_fast_model_stands_in_every_figure(stores):
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


def test_store_without_events(tmp_path):
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


def test_quantiles_of_histograms():
    rng = np.random.default_rng(1)
    values = rng.lognormal(0, 1, 5000)
    axis = Axis("x", "", 1e-3, 1e3, 2000, log=True)
    found = quantile_of_counts(axis.count(values), axis, 0.68)
    assert found.value == pytest.approx(np.quantile(values, 0.68), rel=0.01)
    spread = np.sqrt(0.68 * 0.32 / 5000)
    assert found.low == pytest.approx(np.quantile(values, 0.68 - spread), rel=0.01)
    assert found.high == pytest.approx(np.quantile(values, 0.68 + spread), rel=0.01)
    assert found.entries == 5000
    assert np.isnan(quantile_of_counts(np.zeros(2000), axis, 0.5).value)
    assert np.isnan(quantile_of_counts(axis.count(values[:10]), axis, 0.5, fewest=11).value)
    flat = Axis("x", "", 0.0, 10.0, 10)
    counts = np.array([0, 0, 4, 0, 0, 0, 0, 4, 0, 0.0])
    assert quantile_of_counts(counts, flat, 0.25).value == pytest.approx(2.5)
    assert quantile_of_counts(counts, flat, 0.75).value == pytest.approx(7.5)
    assert quantile_of_counts(counts, flat, 1.0).value == pytest.approx(8.0)


def test_values_outside_an_axis_are_counted_at_its_ends():
    np.testing.assert_array_equal(DIRECTION.index(np.array([0.0, 500.0])), [0, 1249])


def test_share_interval_against_its_definition():
    passed, thrown = np.array([0.0, 3.0, 10.0]), np.array([10.0, 10.0, 10.0])
    p, low, high = share_interval(passed, thrown)
    np.testing.assert_allclose(p, [0, 0.3, 1])
    assert low[0] == pytest.approx(0, abs=1e-12)
    assert high[2] == pytest.approx(1)
    # The ends are the shares from which the observed one is one standard deviation away.
    for end in (low[1], high[1]):
        assert abs(p[1] - end) == pytest.approx(np.sqrt(end * (1 - end) / 10))
    assert np.isnan(share_interval(np.zeros(1), np.zeros(1))[0]).all()


@pytest.mark.parametrize("index", [-2.7, -1.0, 0.0])
def test_spectrum_integral(index):
    grid = np.linspace(2.0, 3.0, 100_001)
    expected = np.trapezoid(grid**index, grid)
    assert spectrum_integral(index, np.array([2.0]), np.array([3.0]))[0] == pytest.approx(expected)
    assert spectrum_integral(index, np.array([2.0]), np.array([1.0]))[0] == 0


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
