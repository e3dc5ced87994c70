"""The pieces of the production driver: frames, layouts, checks before work, and its small parts."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.config_simulation import (
    ArrayConfig,
    CalibrationEventsConfig,
    SimulateConfig,
    SpectrumConfig,
    ViewConfig,
)
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.instrument.astri import mini_array
from astri_gpu.io.simtel_truth import impact_distance
from astri_gpu.kernels.coordinates import altaz_to_telescope, ground_to_tilted
from astri_gpu.kernels.simulation_types import EmRows, MuonRows, ShowerRows
from astri_gpu.simulation.frame import ShowerFrame
from astri_gpu.simulation.layout import array_of
from astri_gpu.simulation.plan import PARTICLES, plan_production
from astri_gpu.simulation.production import DeadTime, event_id, event_time_ns, image_slices
from astri_gpu.simulation.rows import ranges, select_showers
from astri_gpu.simulation.thrown import ThrownHistogram

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.integers(-(10**400), 10**400), st.floats(),
    st.text(max_size=5), st.dates(), st.binary(max_size=3),
)  # fmt: skip
TELESCOPES = st.fixed_dictionaries(
    {key: st.integers(-3, 70_000) | SCALARS for key in ("id", "x_north_m", "y_west_m", "z_m")}
)
TREES = st.recursive(
    SCALARS,
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inside, max_size=3)
    ),
    max_leaves=6,
)
POINTINGS = [(70.0, 0.0), (90.0, 0.0), (52.0, 205.0), (31.0, 340.0)]


@pytest.fixture(params=POINTINGS, ids=str)
def frame(request):
    return ShowerFrame(*request.param)


@pytest.fixture
def lines():
    rng = np.random.default_rng(3)
    x, y = rng.uniform(-1500, 1500, (2, 50))
    q_lon, q_lat = rng.uniform(-0.1, 0.1, (2, 50))
    return x, y, q_lon, q_lat


def config(tmp_path, **options):
    return SimulateConfig(output=str(tmp_path / "a.zarr"), **options)


class TestFrame:
    def test_axes_are_the_ones_of_the_telescope_frame(self, frame):
        np.testing.assert_allclose(frame.axes @ frame.axes.T, np.eye(3), atol=1e-15)
        assert np.linalg.det(frame.axes) == pytest.approx(
            -1
        )  # lon grows to the right, seen upwards
        small = 1e-4
        pointing = (np.float64(frame.alt), np.float64(frame.az))
        if frame.alt == 90:  # the telescope frame is turned about the zenith like ours
            return
        lon, lat = altaz_to_telescope(
            *frame.sky(np.array([small, 0]), np.array([0, small])), *pointing
        )
        np.testing.assert_allclose(np.deg2rad(lon), [small, 0], atol=1e-12)
        np.testing.assert_allclose(np.deg2rad(lat), [0, small], atol=1e-12)

    def test_camera_formula_of_the_kernels_is_the_telescope_frame(self, frame, lines):
        # The third order that kernels/camera.py uses, against the exact rotation.
        *_, q_lon, q_lat = lines
        lon, lat = altaz_to_telescope(
            *frame.sky(q_lon, q_lat), np.float64(frame.alt), np.float64(frame.az)
        )
        np.testing.assert_allclose(np.deg2rad(lon), q_lon * (1 - q_lon**2 / 3), atol=5e-6)
        np.testing.assert_allclose(
            np.deg2rad(lat), q_lat * (1 - q_lon**2 / 2 - q_lat**2 / 3), atol=1e-5
        )

    def test_sky_and_back(self, frame, lines):
        *_, q_lon, q_lat = lines
        found = frame.tangent(*frame.sky(q_lon, q_lat))
        np.testing.assert_allclose(found, (q_lon, q_lat), atol=1e-13)

    def test_telescopes_lie_in_the_tilted_plane(self, frame):
        layout = mini_array()
        found = frame.telescopes(layout)
        tilted = ground_to_tilted(layout.x, layout.y, layout.z, frame.alt, np.float64(frame.az))
        # Tilted x points downwards along the altitude, tilted y to the left of the pointing.
        np.testing.assert_allclose(found.y, -tilted.x, atol=1e-9)
        np.testing.assert_allclose(found.x, -tilted.y, atol=1e-9)
        np.testing.assert_allclose(found.z, tilted.z, atol=1e-9)

    def test_core_lies_on_the_line_and_on_the_ground(self, frame, lines):
        x, y, q_lon, q_lat = lines
        line = frame.line(x, y, q_lon, q_lat)
        core = np.stack([line.core_x, line.core_y, np.zeros_like(x)])
        lon, lat, height = frame.axes @ core
        np.testing.assert_allclose(lon, x + q_lon * height, atol=1e-9)
        np.testing.assert_allclose(lat, y + q_lat * height, atol=1e-9)
        np.testing.assert_allclose(
            frame.place(line.core_x, line.core_y, q_lon, q_lat), (x, y), atol=1e-9
        )
        assert ((line.az >= 0) & (line.az < 360)).all()

    def test_impact_distance_is_that_of_ingest(self, frame, lines):
        layout = mini_array()
        line = frame.line(*lines)
        found = frame.impact(line, layout)
        position = np.column_stack([layout.x, layout.y, layout.z])
        for row in range(3):
            truth = {f"true_{name}": column[row] for name, column in line._asdict().items()}
            np.testing.assert_allclose(found[row], impact_distance(truth, position), rtol=1e-12)


class TestLayout:
    def write(self, tmp_path, text):
        path = tmp_path / "layout.yaml"
        path.write_text(text, encoding="utf-8")
        return config(tmp_path, array=ArrayConfig(layout=str(path)))

    def test_built_in(self, tmp_path):
        array = array_of(config(tmp_path))
        np.testing.assert_array_equal(array.x, mini_array().x)
        camera = array.cameras[0]
        assert camera.readout.saturation_adc == 4095
        assert camera.optics.effective_focal_length_m == camera.optics.focal_length_m == 2.15
        single = array_of(config(tmp_path, array=ArrayConfig(layout="single")))
        assert (single.n_telescopes, single.x[0], single.altitude_m) == (1, 0, 2370)

    def test_file(self, tmp_path):
        made = self.write(
            tmp_path,
            "telescopes:\n"
            "  - {id: 12, x_north_m: 100, y_west_m: -50.5, z_m: 3}\n"
            "  - {id: 4, x_north_m: 0, y_west_m: 0, z_m: 0}\n",
        )
        array = array_of(made)
        assert array.tel_id.tolist() == [4, 12]
        assert (array.x[1], array.y[1], array.z[1]) == (100, -50.5, 3)
        plan = plan_production(made)
        assert [path.name for path in plan.inputs] == ["layout.yaml"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("telescopes: []", "There is no telescope in the layout file"),
            ("- 1", "has no list 'telescopes': write telescopes:"),
            ("telescopes: [3]", "Telescope 1 in the layout file .* is '3'"),
            ("telescopes: [{id: 1, x_north_m: 2}]", "lacks y_west_m, z_m: write telescopes:"),
            (
                "telescopes: [{id: 1, x_north_m: 2, y_west_m: 0, z_m: 0, tilt: 3}]",
                "has the unknown tilt",
            ),
            (
                "telescopes: [{id: 1, x_north_m: far, y_west_m: 0, z_m: 0}]",
                "x_north_m of telescope 1 .* is 'far': it must be a number of metres",
            ),
            (
                "telescopes: [{id: 1, x_north_m: .nan, y_west_m: 0, z_m: 0}]",
                "is 'nan': it must be a number of metres",
            ),
            (
                "telescopes: [{id: 1.5, x_north_m: 0, y_west_m: 0, z_m: 0}]",
                "id of telescope 1 .* is '1.5': it must be a whole number",
            ),
            (
                "telescopes: [{id: 0, x_north_m: 0, y_west_m: 0, z_m: 0}]",
                "has the number 0: numbers go from 1 to 65535",
            ),
            (
                "telescopes: [{id: 1, x_north_m: 9000, y_west_m: 0, z_m: 0}]",
                "Telescope 1 .* stands at 9000 m North.*: coordinates reach from -5000 to 5000 m",
            ),
            (
                "telescopes: [{id: 1, x_north_m: 0, y_west_m: 0, z_m: 0},"
                " {id: 1, x_north_m: 90, y_west_m: 0, z_m: 0}]",
                "2 telescopes in .* have the number 1: give each its own",
            ),
            (
                "telescopes: [{id: 1, x_north_m: 0, y_west_m: 5, z_m: 0},"
                " {id: 7, x_north_m: 0.5, y_west_m: 5, z_m: 0}]",
                "The telescopes 1 and 7 in .* stand on one spot",
            ),
            ("telescopes: [{", r"cannot be read as YAML \("),
            ("[" * 5000, "cannot be read as YAML"),
            ("telescopes: [{id: 1, x_north_m: 2001-99-99}]", "cannot be read as YAML .*month"),
            ("telescopes: [{id: 1, x_north_m: 0x_}]", "cannot be read as YAML"),
            (
                f"telescopes: [{{id: 1, x_north_m: {10**400}, y_west_m: 0, z_m: 0}}]",
                "it must be a number of metres",
            ),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        with pytest.raises(UsageError, match=message):
            plan_production(self.write(tmp_path, text))

    @given(tree=st.lists(TELESCOPES | TREES, max_size=3).map(lambda t: {"telescopes": t}) | TREES)
    @settings(max_examples=150, deadline=None)
    def test_any_tree_is_a_layout_or_one_sentence(self, tmp_path_factory, tree):
        self.check(tmp_path_factory.getbasetemp(), yaml.safe_dump(tree))

    @given(text=st.text(alphabet="{}[]:-,'\"059.eE&*!|>%@`#?\n _telscopidxzm=", max_size=40))
    @settings(max_examples=150, deadline=None)
    def test_any_text_is_a_layout_or_one_sentence(self, tmp_path_factory, text):
        self.check(tmp_path_factory.getbasetemp(), text)

    def check(self, folder, text):
        made, sentence = self.write(folder, text), ""
        try:
            array = array_of(made)
        except UsageError as error:
            sentence = str(error)
        if not sentence:
            assert array.n_telescopes > 0
            assert np.all(np.abs([array.x, array.y, array.z]) <= 5000)
        assert "\n" not in sentence

    def test_too_many(self, tmp_path):
        entries = [f"{{id: {i + 1}, x_north_m: {9 * i}, y_west_m: 0, z_m: 0}}" for i in range(257)]
        with pytest.raises(UsageError, match=r"257 telescopes .* at most 256"):
            array_of(self.write(tmp_path, f"telescopes: [{', '.join(entries)}]"))

    def test_unknown_name(self, tmp_path):
        with pytest.raises(UsageError, match=r"'mini_aray', which is no file.*did you mean"):
            array_of(config(tmp_path, array=ArrayConfig(layout="mini_aray")))


class TestPlan:
    @pytest.mark.parametrize("production", list(PARTICLES))
    def test_defaults(self, tmp_path, production):
        made = config(tmp_path, production=production)
        plan = plan_production(made)
        particle, settings = PARTICLES[production], plan.settings
        assert settings.primary == particle.number
        assert settings.energy_max_gev == 1000 * particle.energy_max_tev
        assert settings.cone_max_rad == pytest.approx(np.deg2rad(particle.cone_max_deg))
        assert plan.reach_m == pytest.approx(2000 if production != "muon" else 3 + 350, rel=0.05)
        header = plan.header(made)
        assert header["diffuse"] == (production != "gamma")
        assert (header["max_scatter_range"], header["n_showers"]) == (
            particle.scatter_radius_m,
            100_000,
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"spectrum": SpectrumConfig(energy_min_tev=10, energy_max_tev=1)},
                "energy_min_tev is 10 TeV and spectrum.energy_max_tev is 1 TeV: the smaller",
            ),
            (
                {"spectrum": SpectrumConfig(energy_min_tev=400)},
                r"energy_max_tev is 330 TeV \(its default for gamma\)",
            ),
            (
                {"spectrum": SpectrumConfig(energy_min_tev=1e-4)},
                "energy_min_tev is 0.0001 TeV: the shower model covers 0.001 to 1000 TeV",
            ),
            (
                {"view": ViewConfig(cone_min_deg=2)},
                r"cone_max_deg is 0 deg \(its default for gamma\)",
            ),
            ({"first_shower": 4_000_000_000, "n_showers": 400_000_000}, "go beyond shower"),
            ({"event_rate_hz": 1e-6}, "spreads 100000 thrown showers over 3169 years"),
            (
                {
                    "calibration_events": CalibrationEventsConfig(
                        n_flatfield=5, flatfield_pe=[10.0, -2.0]
                    )
                },
                r"flatfield_pe is \[10.0, -2.0\]: give signals above 0",
            ),
        ],
    )
    def test_impossible(self, tmp_path, options, message):
        with pytest.raises(UsageError, match=message):
            plan_production(config(tmp_path, **options))

    def test_zenith_beyond_the_model(self):
        with pytest.raises(UsageError, match=r"view\.zenith_deg is 70: it must be 0 to 60"):
            ViewConfig(zenith_deg=70)

    def test_disk_too_small(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20e6))
        plan_production(config(tmp_path, n_showers=10_000))
        with pytest.raises(AstriError, match=r"6e\+04 images .* 0.33 GB.* 0.02 GB free"):
            plan_production(config(tmp_path / "deep" / "er", n_showers=1_000_000))


class TestParts:
    def test_event_ids_and_times_do_not_depend_on_the_part(self):
        shower = np.repeat(np.arange(5, 9, dtype=np.uint32), 3)
        use = np.tile(np.arange(3, dtype=np.uint32), 4)
        ids = event_id(shower, use, 3)
        np.testing.assert_array_equal(ids, np.arange(16, 28))
        settings = {"n_uses": 3, "rate_hz": 700.0, "seed": 4}
        times = event_time_ns(shower, use, **settings)
        np.testing.assert_array_equal(times[5:7], event_time_ns(shower[5:7], use[5:7], **settings))
        assert (np.diff(times) > 0).all()
        np.testing.assert_array_equal(np.floor(times * 700e-9), ids - 1)

    def test_late_event_times_keep_their_nanoseconds(self):
        shower = np.arange(4_000_000_000, 4_000_000_100, dtype=np.uint32)
        times = event_time_ns(shower, np.zeros_like(shower), n_uses=1, rate_hz=1e6, seed=1)
        assert ((times // 1000) == shower).all()
        assert len(np.unique(times % 1000)) > 50

    def test_slices_keep_events_together(self):
        event = np.array([0, 0, 1, 3, 3, 3, 3, 4, 5, 5])
        parts = list(image_slices(event, 3))
        assert [(part.start, part.stop) for part in parts] == [(0, 3), (3, 7), (7, 10)]
        assert list(image_slices(event[:0], 3)) == []

    def test_dead_time(self):
        tel = np.array([0, 1, 0, 0, 0])
        time = np.array([0.0, 500.0, 900.0, 1000.0, 1500.0])
        dead = DeadTime(2, 1.0)
        assert dead.awake(tel, time).tolist() == [True, True, False, True, False]
        assert dead.awake(tel[:1], np.array([1999.0])).tolist() == [False]
        assert DeadTime(2, 0.0).awake(tel, time).all()

    def test_thrown_histogram(self):
        thrown = ThrownHistogram(2000.0)
        thrown.fill(np.array([0.0, 1999.9, 2000.0, 60.0]), np.array([0.001, 1000.0, 1.0, 1.01]))
        thrown.fill(np.array([60.0]), np.array([1.01]))
        assert thrown.histogram.shape == (40, 120)
        assert thrown.n_entries == 5
        assert thrown.histogram[1, 60] == 2
        assert thrown.energy_edges[60] == pytest.approx(1)
        assert thrown.histogram[39].sum() == 2

    def test_select_showers(self):
        start = np.array([0, 2, 2, 5])
        entry, begin = ranges(start, np.array([2, 1, 0, 2]))
        assert entry.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
        assert begin.tolist() == [0, 3, 3, 5, 8]
        column = np.arange(5.0)
        rows = ShowerRows(
            EmRows(*7 * (column,)), start, MuonRows(*6 * (column[:1],)), np.array([0, 0, 1, 1]),
            np.array([7.0, 8.0, 9.0]),
        )  # fmt: skip
        chosen = select_showers(rows, np.array([2, 1]))
        assert chosen.em.energy.tolist() == [2, 3, 4]
        assert chosen.em_start.tolist() == [0, 3, 3]
        assert chosen.muon_start.tolist() == [0, 0, 1]
        assert chosen.first_interaction.tolist() == [9, 8]
