"""The stage `simulate`: its options, and what it refuses."""

import numpy as np
import pytest

from astri_gpu.cli import main
from astri_gpu.config_simulation import (
    AtmosphereConfig,
    CameraConfig,
    SpectrumConfig,
    ViewConfig,
)
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.simulation import production
from astri_gpu.stages.simulate import run
from astri_gpu.store import open_store

IMAGES = "dl0/image/ASTRICam"


class TestOptions:
    def test_summary_line(self, simulate_config, tmp_path):
        summary = run(simulate_config(tmp_path / "a.zarr", n_showers=8, n_uses=2))
        assert summary.line.startswith("simulate: 8 showers (16 uses), ")
        assert summary.line.endswith("MB, backend cpu)")
        assert summary.n_bytes == sum(
            file.stat().st_size for file in (tmp_path / "a.zarr").rglob("*") if file.is_file()
        )

    def test_command_line(self, tmp_path, capsys):
        output = tmp_path / "a.zarr"
        options = ["n_showers=20", "shower.tables=draft", "backend=cpu", "progress=false"]
        assert main(["simulate", "production=electron", f"output={output}", *options]) == 0
        assert "simulate: 20 showers, " in capsys.readouterr().out
        store = open_store(output)
        assert store.attrs["kind"] == "electron"
        assert main(["simulate", f"output={output}", *options]) == 2
        text = capsys.readouterr().err
        assert "made with other options (production electron → gamma)" in text
        assert main(["simulate", "production=electron", f"output={output}", *options]) == 0
        assert capsys.readouterr().out == "simulate: nothing to do, 1 part done before\n"

    def test_uses_share_their_shower(self, made, tmp_path):
        store = made(tmp_path / "a.zarr", n_showers=10, n_uses=5, batch_size=16)
        event = store.read_table("simulation/event")
        assert store.read("simulation/thrown/histogram").sum() == 50
        assert store.group_attrs("simulation")["shower_reuse"] == 5
        np.testing.assert_array_equal(event["shower_id"], (event["event_id"] - 1) // 5)
        numbers, counts = np.unique(event["shower_id"], return_counts=True)
        assert counts.max() > 1
        for number in numbers:
            same = event["shower_id"] == number
            assert np.unique(event["true_energy"][same]).size == 1
            assert np.unique(event["true_core_x"][same]).size == same.sum()

    def test_muons(self, made, tmp_path):
        store = made(
            tmp_path / "a.zarr",
            production="muon",
            n_showers=40,
            spectrum=SpectrumConfig(),
            view=ViewConfig(),
        )
        assert store.attrs["kind"] == "muon"
        assert store.n_rows("dl0/event") > 20
        assert np.isnan(store.read("simulation/event/true_x_max")).all()
        assert store.read("simulation/image/ASTRICam/true_impact_distance").min() < 3
        thrown = store.read_table("simulation/thrown")
        assert thrown["histogram"].sum() == 40

    def test_dead_time_loses_triggers(self, made, small, tmp_path):
        # 1000 showers a second, so that within 20 ms a telescope sees few of them.
        store = made(tmp_path / "a.zarr", n_showers=60, camera=CameraConfig(dead_time_us=20_000))
        assert 9 <= store.n_rows(IMAGES) < 0.3 * small.n_rows(IMAGES)
        index = store.read(f"{IMAGES}/event_index")
        event = store.read_table("dl0/event")
        time = event["time_s"] * 1_000_000_000 + event["time_ns"]
        for tel in range(1, 10):
            of_tel = time[index[store.read(f"{IMAGES}/tel_id") == tel]]
            assert (np.diff(of_tel) > 0.0199e9).all()

    def test_nothing_triggers(self, simulate_config, tmp_path, caplog):
        options = simulate_config(
            tmp_path / "a.zarr",
            n_showers=20,
            spectrum=SpectrumConfig(energy_min_tev=0.01, energy_max_tev=0.01),
        )
        assert run(options).n_events == 0
        assert "none of 20 thrown showers triggered a telescope" in caplog.text
        store = open_store(tmp_path / "a.zarr")
        assert store.read("simulation/thrown/histogram").sum() == 20
        assert store.n_rows(IMAGES) == 0


class TestRefused:
    def test_output_exists(self, simulate_config, small):
        with pytest.raises(UsageError, match="made with other options"):
            run(simulate_config(small.path, seed=9))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"spectrum": SpectrumConfig(energy_min_tev=9, energy_max_tev=3)}, "the smaller one"),
            ({"view": ViewConfig(cone_min_deg=3, cone_max_deg=1)}, "the smaller one comes first"),
            ({"camera": CameraConfig(gain_adu=[60.0])}, "gain_adu"),
            ({"atmosphere": AtmosphereConfig(profile="nowhere.dat")}, "nowhere.dat"),
        ],
    )
    def test_bad_options_leave_nothing(self, simulate_config, tmp_path, options, message):
        with pytest.raises(AstriError, match=message):
            run(simulate_config(tmp_path / "a.zarr", **options))
        assert list(tmp_path.iterdir()) == []

    def test_an_error_on_the_way_leaves_nothing(self, simulate_config, tmp_path, monkeypatch):
        def fail(*_):
            raise AstriError("The light went out.")

        monkeypatch.setattr(production._Production, "_block", fail)
        with pytest.raises(AstriError, match="The light went out"):
            run(simulate_config(tmp_path / "a.zarr", n_showers=60))
        assert list(tmp_path.iterdir()) == []

    def test_an_error_of_the_writer_leaves_nothing(self, simulate_config, tmp_path, monkeypatch):
        def fail(*_):
            raise AstriError("The disk holding a.zarr is full.")

        monkeypatch.setattr(production.ProductionWriter, "_write", fail)
        with pytest.raises(AstriError, match="is full"):
            run(simulate_config(tmp_path / "a.zarr", n_showers=60))
        assert list(tmp_path.iterdir()) == []
