"""The stage `optimize`: what it writes, when it does nothing, what it refuses and remembers."""

from dataclasses import replace

import numpy as np
import pytest

from astri_gpu.config import BackendConfig, OptimizeConfig
from astri_gpu.config_response import CutsConfig, FluxConfig
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.selection.cut_file import read_cuts
from astri_gpu.stages import optimize
from astri_gpu.store import fingerprint
from tests.drawn_events import MODEL, MODELS, drawn_store

SMALL = {
    "energy_min_tev": 1.0,
    "energy_max_tev": 30.0,
    "bins_per_decade": 3,
    "gammaness_efficiencies": [0.5, 0.8],
    "theta_efficiencies": [0.6, 0.8],
}
CC12 = {"event_class": "cc12", "mode": "efficiency", "gamma_efficiency": 0.8}


def config(drawn, output, kinds=("gamma", "point", "proton", "electron"), cuts=None, **options):
    return OptimizeConfig(
        input=[str(drawn[kind]) for kind in kinds],
        output=str(output),
        backend=BackendConfig(name="numpy"),
        cuts=CutsConfig(**{**SMALL, **(cuts or {})}),
        progress=False,
        **options,
    )


@pytest.fixture
def done(drawn, tmp_path):
    return optimize.run(config(drawn, tmp_path / "cuts.fits"))


def test_file_and_summary(done, drawn):
    cuts = read_cuts(done.output)
    np.testing.assert_array_equal(cuts.gammaness, done.cuts.gammaness)
    assert (cuts.event_class, len(cuts.flags)) == ("cc03", 4)
    assert cuts.meta["simulation_model"] == MODEL
    assert cuts.meta["models"] == MODELS
    record = cuts.meta["provenance"]
    assert record["stage"] == "optimize"
    assert {entry["checksum"] for entry in record["inputs"]} == set(
        map(fingerprint, drawn.values())
    )
    assert (done.n_run, done.n_reused) == ({}, {})
    assert np.isfinite(done.score)
    assert len(done.table["sensitivity"]) == len(done.table["flags"]) == 4
    line = done.line
    assert line.startswith("optimize: cc03, 4 of 4 bins have a cut")
    assert "erg/(cm2 s) at" in line
    assert "s to read them" in line


def test_done_before(done, drawn):
    """The same again does nothing, whatever the order of the stores, and has the same score."""
    before = done.output.stat().st_mtime_ns
    kinds = ("proton", "electron", "point", "gamma")
    again = optimize.run(config(drawn, done.output, kinds, score="sensitivity"))
    assert again.before
    assert "was done before" in again.line
    assert again.score == pytest.approx(done.score, rel=1e-12)
    assert done.output.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"cuts": CC12}, r"made with other options \(cuts.event_class cc03 → cc12"),
        ({"cuts": {"max_theta_deg": 0.2}}, r"cuts.max_theta_deg 0.3 → 0.2"),
        ({"part": "even"}, "part all → even"),
        (
            {"kinds": ("point", "proton")},
            r"made by optimize from .*electron.* not by optimize from point",
        ),
    ],
)
def test_made_otherwise(done, drawn, options, text):
    with pytest.raises(UsageError, match=text):
        optimize.run(config(drawn, done.output, **options))
    again = optimize.run(config(drawn, done.output, **options, overwrite=True))
    assert not again.before


def test_events_are_read_once(drawn, tmp_path, monkeypatch):
    """Other grids, exposures, spectra and offsets use the same tables; another filter does not."""
    from astri_gpu.selection import events

    read, calls = events.read_sample, []
    monkeypatch.setattr(
        events,
        "read_sample",
        lambda paths, **options: calls.append(options) or read(paths, **options),
    )
    optimize._loaded.cache_clear()
    optimize._prepared.cache_clear()
    for number, options in enumerate(
        (
            {},
            {"cuts": {"max_theta_deg": 0.2}},
            {"cuts": {"exposure_h": 5.0}},
            {"cuts": CC12},
            {"flux": FluxConfig(proton="powerlaw:0.1:-2.7")},
            {"cuts": {"offset_max_deg": 1.5}},
        )
    ):
        optimize.run(config(drawn, tmp_path / f"{number}.fits", **options))
    assert len(calls) == 1
    other = {"filter": "reco_n_tels >= 3"}
    optimize.run(config(drawn, tmp_path / "filter.fits", cuts=other))
    assert len(calls) == 2
    exposures = [read_cuts(tmp_path / f"{number}.fits").exposure_h for number in (0, 2, 3)]
    assert exposures == [50.0, 5.0, None]


def test_a_store_that_was_made_again_is_read_again(drawn, tmp_path):
    store = tmp_path / "gamma.zarr"
    scores = []
    for seed in (1, 2):
        drawn_store(
            store, "gamma", n_thrown=20_000, seed=seed, **({} if seed == 1 else {"index": -2.0})
        )
        paths = {"gamma": store, "proton": drawn["proton"]}
        output = tmp_path / f"{seed}.fits"
        scores.append(optimize.run(config(paths, output, kinds=("gamma", "proton"))).score)
        remove(store)
    assert scores[0] != scores[1]


def remove(store):
    import shutil

    shutil.rmtree(store)


@pytest.mark.parametrize(
    ("kinds", "options", "text"),
    [
        (("gamma", "point"), {}, "There is no background among the 2 stores"),
        (("proton", "electron"), {}, "There is no gamma among the 2 stores"),
        (("gamma", "proton"), {"flux": FluxConfig(proton="none")}, "flux.proton is 'none'"),
        (("gamma", "proton"), {"cuts": {"filter": "true_energy > 1"}}, "must not use true_energy"),
    ],
)
def test_refused(drawn, tmp_path, kinds, options, text):
    with pytest.raises(AstriError, match=text):
        optimize.run(config(drawn, tmp_path / "cuts.fits", kinds, **options))
    assert not list(tmp_path.iterdir())


def test_outputs_of_others_are_left_alone(drawn, tmp_path):
    other = tmp_path / "notes.fits"
    other.write_text("mine")
    with pytest.raises(UsageError, match="exists already, and not as an output of optimize"):
        optimize.run(config(drawn, other))
    assert other.read_text() == "mine"


def test_no_cut_anywhere(drawn, tmp_path):
    """Options that leave nothing: a file that says so, and the worst score there is."""
    done = optimize.run(config(drawn, tmp_path / "cuts.fits", cuts={"min_gamma_events": 10**6}))
    assert not done.cuts.valid.any()
    assert done.cuts.valid_range_tev is None
    assert done.score == pytest.approx(2)
    assert "0 of 4 bins have a cut" in done.line
    assert not read_cuts(done.output).valid.any()
    assert replace(done, before=True).line.endswith("was done before")
