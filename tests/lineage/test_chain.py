"""Chains of products: followed, printed, and written as W3C PROV."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from astropy.io import fits

from astri_gpu.cli import main
from astri_gpu.errors import AstriError, UsageError
from astri_gpu.lineage.cards import step_cards
from astri_gpu.lineage.chain import CHANGED, MISSING, SAME, UNCHECKED, follow
from astri_gpu.lineage.document import prov_document, write_document
from astri_gpu.lineage.reader import last_step
from astri_gpu.output_file import write_json
from astri_gpu.provenance import provenance
from astri_gpu.store import create


def record(stage, inputs, **options):
    return provenance(stage, options, inputs, "2026-01-15T22:00:00+00:00")


def fits_of(path, stage, inputs, **options):
    header = fits.Header({"TELID": path.stem})  # else those of one step would be equal
    for name, card in step_cards(record(stage, inputs, **options)).items():
        header[name] = card
    fits.PrimaryHDU(header=header).writeto(path)
    return path


@pytest.fixture
def night(tmp_path, monkeypatch):
    """A chain of products of all kinds in a folder, named as from the folder above it."""
    monkeypatch.chdir(tmp_path)
    folder = Path("night")
    for name in ("raw", "dl0", "science"):
        (folder / name).mkdir(parents=True)
    raws = [folder / "raw" / f"tel{number}.raw" for number in (1, 2)]
    for number, raw in enumerate(raws):
        raw.write_bytes(bytes([number]) * 100)
    events = [
        fits_of(folder / "dl0" / f"tel{number}.fits", "preprocess", raws, wait_s=7.0)
        for number in (1, 2)
    ]
    write_json(folder / "dl0/preprocess.json", {"provenance": record("preprocess", raws)})
    seb = fits_of(folder / "seb0.fits", "build-events", events, window_half_width_us=0.5)
    (folder / "seb0_offsets.png").touch()
    cal = fits_of(folder / "cal1.fits", "calibrate", events)
    store = folder / "run.zarr"
    made = record("ingest", [*events, seb, cal], format="dl0_fits")
    with create(store, attrs={"provenance": made}):
        pass
    (folder / "science" / "theta2.png").touch()
    made = {"provenance": record("science", [store, seb]), "numbers": {}}
    write_json(folder / "science/science.json", made)
    return folder


def states(chain):
    return {Path(found.name).name: found.state for found in chain.products.values()}


def test_a_chain_leads_back_to_the_raw_files(night):
    chain = follow(night / "science")
    stages = {"science", "ingest", "build-events", "calibrate", "preprocess"}
    assert {step.stage for step in chain.steps.values()} == stages
    assert sorted(Path(found.name).name for found in chain.sources()) == ["tel1.raw", "tel2.raw"]
    assert set(states(chain).values()) == {SAME}
    assert not chain.problems()
    # Products that several steps have read stand in it once.
    assert len(chain.products) == 1 + 5 + 2
    (ingest,) = (step for step in chain.steps.values() if step.stage == "ingest")
    assert [found.name for found in chain.inputs(ingest)][2:] == [
        "night/seb0.fits",
        "night/cal1.fits",
    ]
    assert ingest.changed == {"format": "dl0_fits"}
    assert "python" in ingest.libraries


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("run.zarr", "ingest"),
        ("seb0.fits", "build-events"),
        ("seb0_offsets.png", "build-events"),
        ("dl0", "preprocess"),
        ("dl0/preprocess.json", "preprocess"),
        ("science/theta2.png", "science"),
        ("raw/tel1.raw", None),
    ],
)
def test_the_last_step_of_any_product(night, name, stage):
    step = last_step(night / name)
    assert (step and step.stage) == stage


def test_the_folder_of_a_run_stands_for_its_last_product(night):
    assert last_step(night) is None
    outputs = [["seb0.fits"], ["science"], ["raw"]]
    write_json(night / "run.json", {"steps": [{"outputs": names} for names in outputs]})
    assert last_step(night).stage == "science"
    assert follow(night).steps


def test_a_chain_that_has_moved_is_found_beside_its_product(night, tmp_path, monkeypatch):
    elsewhere = tmp_path / "disk" / "renamed"
    elsewhere.parent.mkdir()
    night.rename(elsewhere)
    chain = follow(elsewhere / "science")
    assert set(states(chain).values()) == {SAME}
    monkeypatch.chdir(elsewhere / "raw")
    assert len(follow("../science").sources()) == 2


def test_what_is_missing_or_has_changed_is_told_and_not_followed(night, tmp_path):
    hidden = tmp_path / "archive" / "old" / "tel2.raw"
    hidden.parent.mkdir(parents=True)
    shutil.move(night / "raw/tel2.raw", hidden)
    (night / "cal1.fits").unlink()
    fits_of(night / "cal1.fits", "calibrate", [], min_events=3)
    chain = follow(night / "science")
    found = states(chain)
    assert (found["cal1.fits"], found["tel2.raw"], found["tel1.raw"]) == (CHANGED, MISSING, SAME)
    assert "calibrate" not in {step.stage for step in chain.steps.values()}
    missing, changed = sorted(chain.problems(), key=lambda text: "missing" not in text)
    assert "night/raw/tel2.raw is missing" in missing
    assert "cal1.fits has changed since it was read" in changed
    # By its checksum in a folder to search; a file of that name with another content is not it.
    decoy = tmp_path / "archive" / "another" / "tel2.raw"
    decoy.parent.mkdir()
    decoy.write_text("another")
    chain = follow(night / "science", [tmp_path / "archive"])
    assert states(chain)["tel2.raw"] == SAME
    assert str(hidden) in {str(found.path) for found in chain.products.values()}
    assert set(states(follow(night / "science", check=False)).values()) == {
        SAME,
        UNCHECKED,
        MISSING,
    }
    with pytest.raises(AstriError, match="nowhere to search does not exist"):
        follow(night / "science", [tmp_path / "nowhere"])


def test_a_record_that_names_its_own_product_does_not_lead_in_circles(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    sums = {one: "sha256:1", two: "sha256:2"}
    for mine, other in ((one, two), (two, one)):
        mine.mkdir()
        made = record("report", []) | {"inputs": [{"path": str(other), "checksum": sums[other]}]}
        write_json(mine / "summary.json", {"provenance": made})
    chain = follow(one, check=False)
    assert len(chain.steps) == 2
    assert main(["provenance", str(one), "check=false"]) == 0


def test_damaged_products_are_told(night):
    (night / "cal1.fits").write_bytes(b"no FITS at all")
    with pytest.raises(AstriError, match=r"The provenance of .*cal1.fits cannot be read"):
        last_step(night / "cal1.fits")
    (night / "run.zarr/zarr.json").write_text("{")
    with pytest.raises(AstriError):
        follow(night / "run.zarr")
    with pytest.raises(AstriError, match="There is no product"):
        follow(night / "nothing")
    bad = {"stage": "science", "inputs": [{"name": 1}]}
    write_json(night / "science/science.json", {"provenance": bad})
    with pytest.raises(AstriError, match="cannot be read"):
        follow(night / "science")


def test_a_document_of_w3c_prov(night, tmp_path):
    from prov.model import (
        ProvActivity,
        ProvAgent,
        ProvDerivation,
        ProvDocument,
        ProvGeneration,
        ProvUsage,
    )

    chain = follow(night / "science")
    write_document(tmp_path / "chain.json", chain)
    document = ProvDocument.deserialize(tmp_path / "chain.json", format="json")
    assert document == prov_document(chain)
    assert len(list(document.get_records(ProvActivity))) == 5
    assert len(list(document.get_records(ProvAgent))) == 1
    assert len(list(document.get_records(ProvGeneration))) == 6
    # science 2, ingest 4, build-events 2, calibrate 2, preprocess 2; twelve with one more each for
    # the description of the stage, and three options that are not the default.
    assert len(list(document.get_records(ProvUsage))) == 12 + 5 + 3
    pairs = [record.args[:2] for record in document.get_records(ProvDerivation)]
    assert len(pairs) == 2 + 4 + 2 + 2 + 2 * 2
    graph: dict = {}
    for product, origin in pairs:
        graph.setdefault(str(product), set()).add(str(origin))
    reached, waiting = set(), [next(name for name in graph if not _is_used(name, graph))]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += graph.get(name, set()) - reached
    assert len(reached) == 8  # from the page to both raw files
    values = {str(value) for record in document.get_records() for _, value in record.attributes}
    assert {"window_half_width_us", "format", "wait_s"} <= values
    with pytest.raises(UsageError, match="exists already"):
        write_document(tmp_path / "chain.json", chain)
    with pytest.raises(UsageError, match=r"choose one of \.json"):
        write_document(tmp_path / "chain.txt", chain)
    assert not (tmp_path / "chain.txt").exists()


def test_prov_xml_needs_lxml(night, tmp_path):
    chain = follow(night / "seb0.fits")
    if find_spec("lxml") is None:
        with pytest.raises(AstriError, match="pip install lxml"):
            write_document(tmp_path / "chain.xml", chain)
        assert not list(tmp_path.glob("chain*"))
    else:
        write_document(tmp_path / "chain.xml", chain)
        assert b"wasDerivedFrom" in (tmp_path / "chain.xml").read_bytes()


def test_packets_of_a_simulated_run_have_the_record_of_its_truth_file(night):
    stem = "20260115_MA{}_Crab_W0.50p090_00000001_R_000002"
    raw = night / "raw" / f"{stem.format('01')}.raw"
    raw.write_bytes(b"packets")
    assert last_step(raw) is None  # as those of a real run
    fits_of(night / "raw" / f"{stem.format('')}_truth.fits", "simulate-observation", [], seed=3)
    assert last_step(raw).stage == "simulate-observation"
    assert last_step(night / "raw/tel1.raw") is None


def test_many_inputs_of_a_kind_are_drawn_as_one(night, capsys):
    raws = [night / "raw" / f"more{number}.raw" for number in range(8)]
    for number, raw in enumerate(raws):
        raw.write_bytes(bytes(number))
    fits_of(night / "many.fits", "build-events", raws)
    raws[5].unlink()
    assert main(["provenance", str(night / "many.fits")]) == 0
    told = capsys.readouterr().out
    assert "and 6 more like it" in told
    assert "more0.raw" in told
    assert "more1.raw" not in told
    assert "more5.raw" in told  # what is not well is always shown
    assert main(["provenance", str(night / "many.fits"), "full=true"]) == 0
    told = capsys.readouterr().out
    assert all(raw.name in told for raw in raws)


def _is_used(name, graph):
    return any(name in origins for origins in graph.values())


def test_the_stage_prints_the_chain_and_writes_it(night, capsys):
    (night / "raw/tel2.raw").unlink()
    assert main(["provenance", str(night / "science"), "output=chain.provn"]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert lines[0] == "night/science"
    assert "window_half_width_us=0.5" in told
    assert any("tel2.raw" in line and line.endswith("missing") for line in lines)
    assert any("tel1.raw" in line and line.endswith("no record") for line in lines)
    assert told.count("wait_s=7.0") == 1  # drawn once; its other products refer to it
    assert "as above" in told
    assert "provenance: 5 steps and 7 products behind night/science, 2 of them without" in told
    assert "1 problem" in lines[-1]
    assert "wasDerivedFrom" in Path("chain.provn").read_text()
    assert main(["provenance", str(night / "raw/tel1.raw")]) == 1
    assert "does not say where it comes from" in capsys.readouterr().err
    assert main(["provenance", str(night / "science"), "output=chain.provn"]) == 2
    assert json.loads((night / "science/science.json").read_text())["numbers"] == {}
