"""The script behind docs/evidence.md: it writes every block of the page, and its claims can fail."""

import importlib.util
import json
from pathlib import Path

import pytest

from rf_cli.ablate_plan import DENSITIES
from tests.cli import ablations

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"device": "cpu", "device_name": "a processor", "threads": 2, "torch": "9"}
LAST = "representative last, order compact, block 128"
MEAN = "representative mean, order compact, block 128"


@pytest.fixture(scope="module")
def evidence():
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def sinks_are_rendered_where_they_are_made_up(monkeypatch):
    monkeypatch.setattr("rf_cli.ablate_plan.SINK_RENDERED", 0.2)


def made(folder, recalls, psnr=(20.0, 20.0)):
    ablation = ablations.ablation(folder, recalls)
    sinks = [entry for entry in ablation.plan.entries if entry.group == "sink"]
    for entry, value in zip(sinks, psnr, strict=True):
        for index in range(4):
            ablation.cells.put(
                ablation.render_key(entry, ablations.SIZE, index), ablations.rendered(value)
            )
    return ablations.ablate_record.record(ablation, command="", environment=ENVIRONMENT)


def holds(evidence, record):
    return {row[0]: row[1] for row in evidence._claims({"full": record, "long": record}).rows}


def test_a_block_is_replaced_and_the_rest_of_the_page_stays(evidence):
    page = "one\n<!-- full: A table -->\nold\nlines\n<!-- end -->\ntwo\n"
    new = evidence.written(page, {("full", "A table"): "| new |"})
    assert new == page.replace("old\nlines", "| new |")
    assert evidence.written(new, {("full", "A table"): "| new |"}) == new
    with pytest.raises(SystemExit, match="nothing was made for <!-- full: A table -->"):
        evidence.written(page, {})


def test_every_block_of_the_page_is_one_that_the_runs_make(evidence, tmp_path):
    record = made(tmp_path, {})
    known = {*evidence.blocks({"full": record, "long": record}, "abc")}
    known |= {("full", f"Methods at {density:.0%}") for density in DENSITIES}
    # made-up methods are never held against rainfusion2
    known.add(("full", "RainFusion2.0 against the others"))
    page = (ROOT / "docs" / "evidence.md").read_text("utf-8")
    blocks = evidence.BLOCK.findall(page)
    assert len(blocks) == page.count("<!-- end -->") > 8
    assert set(blocks) <= known


def test_a_block_holds_the_cells_of_the_record(evidence, tmp_path):
    blocks = evidence.blocks({"full": made(tmp_path, {"sink on": 0.3, "sink off": 0.6})}, "abc")
    assert "| on | 32x32 | 20% | 21.0% |" in blocks["full", "First-frame sink"]
    assert "transformer abc" in blocks["full", "protocol"]
    assert "2 prompts, 4 clips" in blocks["full", "protocol"]


def test_claims_hold_or_fail_by_what_was_measured(evidence, tmp_path):
    found = holds(
        evidence, made(tmp_path / "a", {MEAN: 0.7, LAST: 0.4, "sink on": 0.3, "sink off": 0.6}, (20, 22))
    )  # fmt: skip
    assert found["means keep more of the mass than last"] == "yes"
    assert found["a sink costs error at equal density (9 latent frames)"] == "yes"
    assert found["without the sink renders are nearer to dense (PSNR, 40 %)"] == "yes"
    assert found["means keep more of the mass than random"] == "not measured"
    found = holds(
        evidence, made(tmp_path / "b", {MEAN: 0.4, LAST: 0.7, "sink on": 0.6, "sink off": 0.3}, (22, 20))
    )  # fmt: skip
    assert found["means keep more of the mass than last"] == "**no**"
    assert found["a sink costs error at equal density (9 latent frames)"] == "**no**"
    assert found["a sink gains nothing with 21 latent frames (error)"] == "**no**"
    assert found["without the sink renders are nearer to dense (PSNR, 40 %)"] == "**no**"


def test_a_head_of_each_type_is_shown_over_the_frames(evidence, tmp_path, monkeypatch):
    from PIL import Image

    look = tmp_path / "look"
    look.mkdir()
    monkeypatch.setattr(evidence, "PAGE", tmp_path / "evidence.md")
    kinds = {(0, 0): "temporal", (0, 1): "spatial", (1, 0): "spatial"}
    heads = [
        {"layer": layer, "head": head, "step": step, "kind": kind if step else "textural"}
        for step in (0, 1)
        for (layer, head), kind in kinds.items()
    ]
    (look / "record.json").write_text(json.dumps({"heads": heads}))
    Image.new("RGB", (5, 5)).save(look / "types.png")
    colours = {(0, 0): (10, 0, 0), (0, 1): (0, 20, 0), (1, 0): (0, 0, 30)}
    for (layer, head), colour in colours.items():
        Image.new("RGB", (6, 4), colour).save(look / f"kept-layer-{layer}-head-{head}.png")
    evidence.pictures(look)
    shown = Image.open(tmp_path / "kept-blocks.png")
    # of the last step, the first head of each type, by the name of the type
    assert shown.size == (6, 8)
    assert [shown.getpixel((0, y)) for y in (0, 7)] == [(0, 20, 0), (10, 0, 0)]
    assert (tmp_path / "head-types.png").is_file()


def test_a_sink_that_keeps_more_is_not_held_against_going_without(evidence, tmp_path):
    record = made(tmp_path, {"sink on": 0.6, "sink off": 0.3})
    for row in record["sink"]:
        row["achieved"]["mean"] += 0.03 if row["sink"] == "on" else 0
    assert (
        holds(evidence, record)["a sink costs error at equal density (9 latent frames)"]
        == "not measured"
    )


def test_one_prompt_has_no_interval_and_proves_nothing(evidence, tmp_path):
    record = made(tmp_path, {MEAN: 0.7, LAST: 0.4})
    for answer in record["answers"]:
        answer["recall"]["low"] = answer["recall"]["high"] = None
    assert holds(evidence, record)["means keep more of the mass than last"] == "not measured"
