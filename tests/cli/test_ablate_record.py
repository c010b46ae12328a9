import json

import pytest

from tests.cli import ablations


@pytest.fixture
def record(tmp_path):
    recalls = {
        "method good": 0.8,
        "sink on": 0.3,
        "sink off": 0.6,
        "representative mean, order compact, block 128": 0.7,
        "representative last, order compact, block 128": 0.45,
    }
    return ablations.record(tmp_path, recalls)


def row(record, group, **factors):
    (found,) = [r for r in record[group] if all(r[key] == value for key, value in factors.items())]
    return found


def test_a_mean_is_over_clips_with_an_interval_over_prompts(record):
    found = row(record, "methods", method="good")
    assert found["recall"]["mean"] == pytest.approx(0.815) and found["recall"]["count"] == 4
    # prompts have the means 0.81 and 0.82: nothing that is drawn of them lies outside
    assert found["recall"]["low"] == pytest.approx(0.81)
    assert found["recall"]["high"] == pytest.approx(0.82)
    assert found["achieved"]["mean"] == pytest.approx(0.21) and found["density"] == 0.2
    assert found["of_oracle"]["mean"] == pytest.approx(0.815 / 0.9)


def test_differences_are_paired_so_what_clips_share_does_not_widen_them(record):
    (sink,) = [a for a in record["answers"] if a["group"] == "sink"]
    assert (sink["factor"], sink["first"], sink["sink"]) == ("sink", "on", "off")
    assert sink["recall"]["mean"] == pytest.approx(-0.3)
    assert sink["recall"]["low"] == pytest.approx(sink["recall"]["high"])
    assert sink["error"]["mean"] == pytest.approx(0.3)


def test_everything_but_one_factor_is_the_same_in_a_difference(record):
    ideas = [a for a in record["answers"] if a["group"] == "ideas"]
    found = {(a["factor"], a["representative"], a["order"]): a["recall"]["mean"] for a in ideas}
    assert found == {
        ("representative", "last", "compact"): pytest.approx(0.25),
        ("representative", "last", "raster"): pytest.approx(0.0),
        ("order", "mean", "raster"): pytest.approx(0.2),
        ("order", "last", "raster"): pytest.approx(-0.05),
    }


def test_methods_are_held_against_rainfusion2_if_it_is_among_them(tmp_path, monkeypatch):
    entries = [ablations.entry("methods", method=name) for name in ("rainfusion2", "worse")]
    monkeypatch.setattr(ablations, "ENTRIES", entries)
    monkeypatch.setattr(ablations.plan, "__defaults__", (entries,))
    made = ablations.record(tmp_path, {"method rainfusion2": 0.7, "method worse": 0.6})
    (found,) = made["answers"]
    assert (found["first"], found["method"]) == ("rainfusion2", "worse")
    assert found["error"]["mean"] == pytest.approx(-0.1)


def test_what_a_method_cannot_take_is_said_and_has_no_numbers(record):
    assert row(record, "methods", method="refuses") == {
        "size": ablations.SIZE, "method": "refuses", "density": 0.2, "clips": 4,
        "unsupported": "odd frames",
    }  # fmt: skip


def test_a_clip_that_lacks_a_call_does_not_count(tmp_path):
    ablation = ablations.ablation(tmp_path)
    lines = ablation.cells.path.read_text().splitlines(keepends=True)
    ablation.cells.path.write_text("".join(lines[:-1]))  # the last call of the last clip
    again = ablations.Ablation(
        tmp_path, ablations.plan(), load=ablation._load, facts=ablations.FACTS
    )
    made = ablations.ablate_record.record(again, command="", environment={})
    assert row(made, "ideas", representative="last", order="raster")["clips"] == 3
    assert row(made, "ideas", representative="mean", order="raster")["clips"] == 4


def test_layers_are_told_apart(record):
    found = [r for r in record["per_layer"] if r["method"] == "good"]
    assert [r["layer"] for r in found] == [0, 3]


def test_the_record_is_plain_json(record):
    assert json.loads(json.dumps(record)) == record


def test_renders_are_paired_with_their_dense_times(tmp_path):
    ablation = ablations.ablation(tmp_path)
    for index, psnr in enumerate((20.0, 24.0)):
        key = ablation.render_key(ablations.ENTRIES[0], ablations.SIZE, index)
        ablation.cells.put(key, ablations.rendered(psnr))
    (found,) = ablations.ablate_record.record(ablation, command="", environment={})["renders"]
    assert found["psnr"]["mean"] == 22 and found["clips"] == 2 and found["lpips"] is None
    assert found["denoising_speedup"]["mean"] == 2 and found["attention_speedup"]["mean"] == 4
