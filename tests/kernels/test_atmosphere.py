"""The air against files and numbers that were not made here, on every namespace."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astri_gpu.config_simulation import AtmosphereConfig
from astri_gpu.errors import AstriError
from astri_gpu.kernels import atmosphere as air
from astri_gpu.simulation import atmosphere as host
from astri_gpu.simulation.atmosphere import (
    atmosphere_profile,
    light_yield,
    read_profile,
    teide_profile,
    transmission,
)

OPTIONS = {
    "observation_m": 2370.0,
    "aerosol_optical_depth": 0.06,
    "aerosol_scale_height_m": 1200.0,
    "cos_zenith": 0.9,
}
ALTITUDE = np.array([0.0, 2370.0, 9_930.0, 23_456.0, 90_000.0])


def reference_air(altitude, profile):
    """Air at one altitude, by NumPy's own interpolation."""
    return [np.exp(np.interp(altitude, profile.altitude, np.log(values))) for values in profile[1:]]


def test_interpolation(call):
    profile = teide_profile()
    found = call(air.air_at, ALTITUDE, profile)
    for k, altitude in enumerate(ALTITUDE):
        expected = reference_air(altitude, profile)
        np.testing.assert_allclose([values[k] for values in found[1:]], expected, rtol=1e-12)


def test_altitude_is_the_inverse_of_thickness(call):
    profile = teide_profile()
    thickness = air.air_at(ALTITUDE, profile).thickness
    np.testing.assert_allclose(
        call(air.altitude_of_thickness, thickness, profile), ALTITUDE, rtol=1e-10, atol=1e-6
    )


def test_values_stay_at_the_ends_of_a_profile(call):
    nodes, values = np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 0.0])
    x = np.array([[0.0, 1.0, 1.5], [3.0, 4.0, 9.0]])
    expected = [[10, 10, 15], [10, 0, 0]]
    np.testing.assert_allclose(call(air.interpolate, x, nodes, values), expected)


def test_transmission(call):
    profile = teide_profile()
    wavelength = np.array([300.0, 350.0, 450.0, 600.0])
    altitude = np.array([2370.0, 5_000.0, 10_000.0, 20_000.0])
    found = call(air.transmission, wavelength, altitude, profile, **OPTIONS)
    for k in range(4):
        mass = reference_air(2370.0, profile)[1] - reference_air(altitude[k], profile)[1]
        depth = mass / 2970 * (400 / wavelength[k]) ** 4
        column = np.exp(-2370 / 1200) - np.exp(-altitude[k] / 1200)
        depth += 0.06 * (400 / wavelength[k]) ** 1.2 * column
        ozone_cm = 100 * (min(altitude[k], 15_000.0) - 2370)
        depth += 4e-19 * np.exp((300 - wavelength[k]) / 7.6) * 6e11 * ozone_cm
        np.testing.assert_allclose(found[k], np.exp(-depth / 0.9), rtol=1e-12)
    assert found[0] == 1.0  # no way, no loss


def test_transmission_falls_with_the_way():
    profile, config = teide_profile(), AtmosphereConfig()
    height = np.linspace(2370, 30_000, 50)
    down = transmission(400.0, height, profile, config, 1.0)
    assert np.all(np.diff(down) < 0)
    np.testing.assert_allclose(transmission(400.0, height, profile, config, 0.5), down**2)
    assert np.all(np.diff(transmission(np.arange(290.0, 600), 10_000.0, profile, config, 1.0)) > 0)
    clear = AtmosphereConfig(extinction=False)
    np.testing.assert_array_equal(transmission(300.0, height, profile, clear, 1.0), 1)


def test_threshold(call):
    # Textbook: 21 MeV at the sea, 35 MeV at 10 km.
    refractivity = teide_profile().refractivity[[0, 40]]
    found = call(air.cherenkov_threshold, refractivity)
    np.testing.assert_allclose(found, [21.6, 36.7], rtol=0.01)
    speed = np.sqrt(1 - (air.ELECTRON_MASS_MEV / found) ** 2)
    np.testing.assert_allclose(speed * (1 + refractivity), 1, rtol=1e-12)


def test_refractivity_of_edlen(call):
    # Standard air (15 deg C, 1013.25 hPa) for the sodium line and the helium-neon laser.
    for wavelength, expected in ((589.3, 2.771e-4), (632.8, 2.7653e-4)):
        found = call(air.refractivity_of_density, np.array([1.225e-3]), wavelength_nm=wavelength)
        np.testing.assert_allclose(found, expected, rtol=5e-4)


def test_refractivity_is_that_of_the_profiles_of_corsika(shared_data):
    winter = read_profile(shared_data / "corsika" / "atmprof8.dat")
    low = winter.altitude <= 25_000
    ours = air.refractivity_of_density(winter.density[low])
    np.testing.assert_allclose(ours, winter.refractivity[low], rtol=0.005)


def test_built_in_profile_is_air_of_teide(shared_data):
    profile = teide_profile()
    at_array = air.air_at(np.array([2370.0]), profile)
    assert 785 < at_array.thickness[0] < 795  # 770 hPa
    # Hydrostatic: depth is the integral of the density.
    middle = (profile.density[1:] * profile.density[:-1]) ** 0.5
    falls = -np.diff(profile.thickness) / (100 * np.diff(profile.altitude))
    np.testing.assert_allclose(falls, middle, rtol=0.02)
    # The winter profile of La Palma (28.8 N): another season, and nearly the same air.
    winter = read_profile(shared_data / "corsika" / "atmprof8.dat")
    low = (winter.altitude >= 2000) & (winter.altitude <= 25_000)
    ours = air.air_at(winter.altitude[low], profile)
    np.testing.assert_allclose(ours.thickness, winter.thickness[low], rtol=0.04)


def test_yield_without_losses(monkeypatch):
    # 2 pi alpha (1 / 290 nm - 1 / 600 nm) = 81 700 photons per m and unit of sin^2.
    inside = (host.WAVELENGTH_NM >= 290) & (host.WAVELENGTH_NM < 600)
    monkeypatch.setattr(host, "throughput", lambda _: inside.astype(float))
    clear = AtmosphereConfig(extinction=False)
    found = light_yield([2370.0, 10_000.0], teide_profile(), clear, 1.0)
    np.testing.assert_allclose(found, 81_700, rtol=0.01)


def test_yield_of_the_instrument():
    # A prototype with its own curves found 22 100 at the array and 18 000 at 10 km.
    found = light_yield([2370.0, 10_000.0], teide_profile(), AtmosphereConfig(), 1.0)
    np.testing.assert_allclose(found, [22_100, 18_000], rtol=0.05)


GOOD = "# altitude\n" + "".join(
    f"{km} {1.2e-3 * np.exp(-km / 8):.4e} {1000 * np.exp(-km / 8):.4e} {2.8e-4 * np.exp(-km / 8)}\n"
    for km in range(0, 61, 5)
)


def test_file_with_more_columns_and_an_empty_top(tmp_path):
    file = tmp_path / "air.dat"
    rows = [line + " 7 8 # more" for line in GOOD.splitlines()[1:]]
    file.write_text("\n".join([*rows, "70 1e-8 0 1e-9"]))
    profile = atmosphere_profile(AtmosphereConfig(profile=str(file)))
    np.testing.assert_allclose(profile.altitude, np.arange(0, 60_001, 5000))
    np.testing.assert_allclose(profile.thickness[0], 1000)


def without(lines):
    """The good file without some of its lines (0 is the comment)."""
    return "\n".join(line for k, line in enumerate(GOOD.splitlines()) if k not in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (without({4, 5}), "line 5: nothing between 10 and 25 km"),
        (GOOD.replace("\n20 ", "\n10 "), "line 6: the altitude 10 km is not above 15 km"),
        (GOOD.replace("3.4381e-04", "nan"), "not finite"),
        (GOOD.replace("1.8403e-04", "five"), "is not four numbers"),
        (GOOD.replace("\n40 8.0855e-06", "\n40 1"), "line 10: the density does not fall"),
        (GOOD.replace("\n40 8.0855e-06", "\n40 -1"), "line 10: .* have to be positive"),
        (GOOD.replace("\n0 ", "\n0 1 1e300 1 "), "line 2: .*1e\\+300.* 2000 g/cm2 at most"),
        (GOOD.replace("\n60 ", "\n1e306 "), "line 14: .* 1000 km"),
        ("0 1 2\n", "line 1 has 3 columns"),
        ("# nothing\n", "has 0 rows"),
        (without(set(range(9, 20))), "ends at 35 km"),
        (without({1}), "begins at 5000 m, above the array at 2370 m"),
    ],
)
def test_a_bad_file_is_an_error_with_its_line(tmp_path, text, message):
    file = tmp_path / "air.dat"
    file.write_text(text)
    with pytest.raises(AstriError, match=message):
        atmosphere_profile(AtmosphereConfig(profile=str(file)))


@given(
    line=st.integers(1, 13),
    column=st.integers(0, 3),
    word=st.floats(-200, 1e4).map(repr)
    | st.sampled_from(["1e-300", "nan", "inf", "1_0", "x", "#"]),
    end=st.integers(0, len(GOOD)) | st.just(len(GOOD)),
)
@settings(max_examples=150, deadline=None)
def test_odd_files_are_air_or_an_error_of_one_line(tmp_path_factory, line, column, word, end):
    lines = GOOD.splitlines()
    words = lines[line].split()
    words[column] = word
    lines[line] = " ".join(words)
    file = tmp_path_factory.getbasetemp() / "odd.dat"
    file.write_text("\n".join(lines)[:end])
    sentence = ""
    try:
        profile = atmosphere_profile(AtmosphereConfig(profile=str(file)))
    except AstriError as error:
        sentence = str(error)
    assert "\n" not in sentence
    if sentence:
        return
    for column in (air.air_at(ALTITUDE, profile)[1:], profile):
        assert np.all(np.isfinite(np.concatenate(column)))
    altitude = np.linspace(2370, 40_000, 50)
    thickness = air.air_at(altitude, profile).thickness
    np.testing.assert_allclose(air.altitude_of_thickness(thickness, profile), altitude, rtol=1e-6)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(AstriError, match="cannot be read"):
        atmosphere_profile(AtmosphereConfig(profile=str(tmp_path / "none.dat")))
