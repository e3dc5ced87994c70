"""Provenance records as keywords: what astropy and fitsio write and read of them."""

import json

import pytest
from astropy.io import fits
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astri_gpu.lineage.cards import record_of_header, step_cards

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=150)
records = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["process", "build-events"]),
        "software": st.just("astri_gpu"),
        "version": words,
        "config": st.dictionaries(words, st.one_of(words, st.none(), st.integers()), max_size=5),
        "inputs": st.lists(
            st.fixed_dictionaries({"path": words, "checksum": words}), min_size=0, max_size=3
        ),
        "started": words,
        "stopped": words,
        "python": words,
        "libraries": st.dictionaries(words, words, max_size=3),
    }
)
MANY = {
    "stage": "irf",
    "software": "astri_gpu",
    "version": "1",
    "config": {"quotes": "it's & co. &" * 30, "blanks": " " * 200, "nothing": ""},
    "inputs": [{"path": f"no {n}&'", "checksum": "sha256:" + 64 * "0"} for n in range(120)],
    "started": "",
    "stopped": "2026-01-15T22:00:00+00:00",
}


def headers(record, folder):
    """Yield headers that each library reads of what each library wrote."""
    import fitsio

    cards = step_cards(record)
    header = fits.Header()
    for name, card in cards.items():
        header[name] = card
    fits.PrimaryHDU(header=header).writeto(folder / "astropy.fits", overwrite=True)
    with fitsio.FITS(folder / "fitsio.fits", "rw", clobber=True) as file:
        file.write(None)
        for name, (value, comment) in cards.items():
            file[0].write_key(name, value, comment)
    for name in ("astropy.fits", "fitsio.fits"):
        with fits.open(folder / name) as file:
            file.verify("exception")
            yield file[0].header
        yield fitsio.read_header(folder / name)


@settings(max_examples=20, deadline=None)
@given(record=records)
@example(record=MANY)
def test_any_record_comes_back_from_a_header(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    for header in headers(record, folder):
        assert record_of_header(header) == record


def test_keywords_are_what_the_table_of_the_module_says():
    cards = step_cards(MANY)
    assert all(len(name) <= 8 for name in cards)
    assert cards["PROVSTEP"][0] == "irf"
    assert cards["NPROVIN"][0] == 120
    assert cards["PROVIN1"][0] == "no%200%26%27"
    assert cards["PROVID"][0].startswith("irf-")
    other = step_cards(MANY | {"version": "2"})
    assert other["PROVID"] != cards["PROVID"]
    assert step_cards(None) == step_cards({}) == {}
    assert record_of_header({"SIMPLE": True}) is None


@pytest.mark.parametrize("gone", ["PROVIN2", "PROVCS1", "PROVCFG", "NPROVIN", "PROVMORE"])
def test_damaged_keywords_are_told(gone):
    values = {name: value for name, (value, _) in step_cards(MANY).items() if name != gone}
    with pytest.raises(ValueError, match=r"damaged|NPROVIN is 120"):
        record_of_header(values)


def test_files_of_the_version_before_had_json_in_history():
    text = json.dumps({"provenance": MANY})
    header = fits.Header()
    for start in range(0, len(text), 70):
        header.add_history(text[start : start + 70])
    again = fits.Header.fromstring(header.tostring())
    assert record_of_header(again) == MANY
    damaged = fits.Header(list(again.cards)[:-1])
    with pytest.raises(ValueError, match="HISTORY"):
        record_of_header(damaged)
    other = fits.Header()
    other["HISTORY"] = "made by hand"
    assert record_of_header(other) is None
