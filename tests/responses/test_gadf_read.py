"""Reading response files: against gammapy on real files of CTAO and H.E.S.S., and broken ones."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits

from astri_gpu.errors import AstriError
from astri_gpu.responses.gadf_model import quantiles
from astri_gpu.responses.gadf_read import read_irf
from tests.made_responses import gammapy_part

CTAO = "irf/Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz"
HESS = "dl3/hess-dl3-dr1/data/hess_dl3_dr1_obs_id_020136.fits.gz"
ENERGY = np.geomspace(0.08, 80, 40)[:, None]
OFFSET = {CTAO: np.array([0.6, 1.3, 2.5, 3.9]), HESS: np.array([0.0, 0.6, 1.3])}


@pytest.fixture(scope="module", params=[CTAO, HESS], ids=["ctao", "hess"])
def both(request, shared_data):
    """Return our reading, gammapy's, and offsets (deg) between its first and last centre."""
    path = shared_data / request.param
    load = gammapy_part("gammapy.irf").load_irf_dict_from_file
    return read_irf(path), load(path), OFFSET[request.param]


def test_effective_area_equals_gammapys(both):
    ours, theirs, offset = both
    wanted = theirs["aeff"].evaluate(energy_true=ENERGY * u.TeV, offset=offset * u.deg)
    np.testing.assert_allclose(
        ours.effective_area(ENERGY, offset), wanted.to_value("m2"), rtol=1e-12
    )
    assert (ours.effective_area([1e-4, 1e5], 1.0) == 0).all()


@pytest.mark.parametrize("share", [0.68, 0.95])
def test_containment_radius_equals_gammapys(both, share):
    """Gammapy takes the nearest of a raster of radii, whose step is 5e-4 deg or a 20th bin."""
    ours, theirs, offset = both
    found = ours.containment_radius(share, ENERGY, offset)
    psf = theirs["psf"]
    wanted = psf.containment_radius(
        fraction=share, energy_true=ENERGY * u.TeV, offset=offset * u.deg
    ).to_value("deg")
    known = np.isfinite(found) & (wanted < 0.65)  # gammapy's raster for functions ends at 0.66
    assert known.mean() > 0.9
    step = 5e-4 if ours.psf.name == "PSF_3GAUSS" else np.diff(ours.psf.axes[2].edges).max() / 20
    np.testing.assert_allclose(found[known], wanted[known], atol=0.51 * step, rtol=0)


def test_containment_holds_at_our_radius(both):
    ours, theirs, offset = both
    radius = ours.containment_radius(0.68, ENERGY, offset)
    known = np.isfinite(radius)
    held = theirs["psf"].containment(
        rad=np.nan_to_num(radius) * u.deg, energy_true=ENERGY * u.TeV, offset=offset * u.deg
    )
    np.testing.assert_allclose(np.asarray(held)[known], 0.68, atol=2e-4)


def test_density_of_the_psf_equals_gammapys(both):
    ours, theirs, offset = both
    rad = np.array([0.01, 0.05, 0.2])[:, None, None]
    wanted = theirs["psf"].evaluate(
        rad=rad * u.deg, energy_true=ENERGY * u.TeV, offset=offset * u.deg
    )
    found = ours.psf.density(rad, ENERGY, offset)
    np.testing.assert_allclose(found, wanted.to_value("sr-1"), rtol=2e-5, atol=1e-3)


def test_energy_quantiles_equal_gammapys(both):
    """Gammapy has no quantiles; its integral up to ours is the share that belongs to it."""
    ours, theirs, offset = both
    middle = ours.energy_bias(ENERGY, offset) + 1
    known = np.isfinite(middle)
    edisp = theirs["edisp"]
    places = {"energy_true": ENERGY * u.TeV, "offset": offset * u.deg}
    top = edisp.axes["migra"].edges[-1]
    below = edisp.integral("migra", migra=np.nan_to_num(middle), **places)
    whole = edisp.integral("migra", migra=top * np.ones_like(middle), **places)
    np.testing.assert_allclose((below / whole)[known], 0.5, atol=2e-5)


def test_energy_resolution_is_half_the_middle_68_percent(both):
    ours, theirs, offset = both
    found = ours.energy_resolution(ENERGY, offset)
    edisp = theirs["edisp"]
    migra = edisp.axes["migra"]
    density = edisp.evaluate(
        energy_true=ENERGY[..., None] * u.TeV, offset=offset[:, None] * u.deg, migra=migra.center
    )
    share = np.cumsum(density.value * np.diff(migra.edges.value), axis=-1)
    wanted = np.full(found.shape, np.nan)
    for place in np.argwhere(share[..., -1] > 0):
        line = share[tuple(place)] / share[tuple(place)][-1]
        ends = np.interp([0.1587, 0.8413], np.r_[0, line], migra.edges.value)
        wanted[tuple(place)] = np.ptp(ends) / 2
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    assert 0.03 < np.nanmedian(found) < 0.3


def test_background_equals_gammapys(both):
    ours, theirs, offset = both
    lon, lat = np.meshgrid([-1.3, 0.2, 0.9], [-0.7, 1.1])
    energy = ENERGY[:, :, None]
    found = ours.background.evaluate(energy, lon, lat)
    if "hess" in ours.path.name:
        lon, lat = lat, lon  # gammapy reads the dimensions of these files the wrong way round
    wanted = theirs["bkg"].evaluate(energy=energy * u.TeV, fov_lon=lon * u.deg, fov_lat=lat * u.deg)
    wanted = wanted.to_value("s-1 MeV-1 sr-1")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-20)
    assert (found > 0).mean() > 0.5
    ring = ours.background_rate(ENERGY, offset)
    one = ours.background_rate(ENERGY, offset, direction_deg=0.0)
    assert ring.shape == one.shape == (len(ENERGY), len(offset))
    np.testing.assert_allclose(one, ours.background.evaluate(ENERGY, offset, 0.0))


def test_quantiles_of_a_density():
    edges = np.array([0.0, 1.0, 3.0, 4.0])
    found = quantiles(np.array([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]), edges, [0.25, 0.75])
    np.testing.assert_allclose(found[:, 0], [0.5, 3.5])
    assert np.isnan(found[:, 1]).all()


@pytest.fixture
def area_file(tmp_path):
    """Return a function that writes an effective area in an odd way, and its path."""

    def write(**changes):
        low, high = np.geomspace(100, 1e5, 5)[None, :-1], np.geomspace(100, 1e5, 5)[None, 1:]
        area = np.arange(1.0, 9.0).reshape(1, 4, 2)  # (E, O): dimensions of FITS are (O, E)
        columns = {
            "THETA_LO": ("deg", np.array([[0.0, 1.0]])),
            "THETA_HI": ("deg", np.array([[1.0, 2.0]])),
            "ENERG_LO": ("GeV", low),
            "ENERG_HI": ("GeV", high),
            "EFFAREA": ("cm2", area * 1e4),
        }
        columns |= changes.pop("columns", {})
        rows = changes.pop("rows", 1)
        hdu = fits.BinTableHDU.from_columns(
            [
                fits.Column(
                    name,
                    f"{cell[0].size}D",
                    unit=unit,
                    array=cell[:rows],
                    dim=str(cell.shape[:0:-1]) if cell.ndim > 2 else None,
                )
                for name, (unit, cell) in columns.items()
                if cell is not None
            ],
            name=changes.pop("name", "EFFECTIVE AREA"),
        )
        hdu.header.update(changes or {"HDUCLAS4": "AEFF_2D"})
        path = tmp_path / "odd.fits"
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
        return path

    return write


@pytest.mark.parametrize(
    "changes",
    [{}, {"HDUCLAS4": "2D"}, {"HDUCLAS4": "AEFF_2D", "CREF5": "(THETA_LO:THETA_HI,ENERG_LO)"}],
    ids=["order of columns", "by EXTNAME", "by CREF"],
)
def test_any_order_of_axes_and_units(area_file, changes):
    irf = read_irf(area_file(**changes))
    np.testing.assert_allclose(irf.aeff.values, np.arange(1.0, 9.0).reshape(4, 2))
    np.testing.assert_allclose(irf.aeff.axes[0].edges, np.geomspace(0.1, 100, 5))
    centre = np.sqrt(0.1 * 0.1 * 10**0.75)
    np.testing.assert_allclose(irf.effective_area(centre, [0.5, 1.5]), [1, 2])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": 0}, "There is no row in the table EFFECTIVE AREA"),
        ({"columns": {"THETA_LO": ("deg", None)}}, "no column THETA_LO in the table EFFECTIVE"),
        ({"columns": {"EFFAREA": ("kg", np.ones((1, 4, 2)))}}, "The unit 'kg' of column EFFAREA"),
        ({"columns": {"EFFAREA": ("m2", np.ones((1, 4, 3)))}}, "has 12 values, which is not"),
        ({"columns": {"THETA_HI": ("deg", np.array([[1.0, np.nan]]))}}, "no edges of bins"),
        ({"columns": {"THETA_LO": ("deg", np.array([[1.0, 0.0]]))}}, "bins of THETA .* not rise"),
        ({"name": "EVENTS", "HDUCLAS4": "X"}, "holds no response in the format GADF"),
    ],
)
def test_odd_files_get_a_sentence(area_file, changes, sentence):
    with pytest.raises(AstriError, match=sentence):
        read_irf(area_file(**changes))


def test_missing_damaged_and_incomplete_files(area_file, tmp_path):
    with pytest.raises(AstriError, match=r"none\.fits does not exist"):
        read_irf(tmp_path / "none.fits")
    damaged = tmp_path / "damaged.fits"
    damaged.write_bytes(b"SIMPLE  = no")
    with pytest.raises(AstriError, match="cannot be read as FITS"):
        read_irf(damaged)
    irf = read_irf(area_file())
    with pytest.raises(AstriError, match="has no table PSF"):
        irf.containment_radius(0.68, 1.0, 0.5)
    with pytest.raises(AstriError, match="has no table EDISP_2D"):
        irf.energy_bias(1.0, 0.5)
