"""`rf ablate` as a user runs it: what it refuses, what it measures on real calls of shapes, and that it resumes."""

import importlib.util
import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from rainfusion_core.config import SparseConfig
from rainfusion_core.pipeline import load
from rainfusion_core.study.ablation import Variant
from rainfusion_core.study.capture import read_facts, unpack
from rf_cli import presets
from rf_cli.ablate_plan import METHODS, QUICK, Entry, Plan
from rf_cli.ablate_record import record as record_of
from rf_cli.ablate_run import Ablation, clear
from rf_cli.app import app
from rf_cli.requests import clip_of, source_of
from tests.cli import ablations

SMALL = [
    "--clips", "1", "--size", "64x64", "--frames", "17", "--steps", "2", "--layers", "0,5", "--seeds", "3",
    "--method", "rainfusion2", "--method", "random", "--device", "cpu",
]  # fmt: skip


def rf(*args):
    return CliRunner().invoke(app, ["ablate", *map(str, args)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate") / "out"
    result = rf(*SMALL, "--quick", "-o", folder, "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_every_file_that_the_record_names_is_there(measured):
    folder, record = measured
    assert json.loads((folder / "record.json").read_text("utf-8")) == record
    for name in record["files"]:
        assert (folder / name).is_file()
    assert "rf ablate --quick" in record["command"]


def test_means_keep_more_than_a_random_choice_and_never_more_than_the_best_one(measured):
    rows = {row["method"]: row for row in measured[1]["methods"]}
    recalls = {name: row["recall"]["mean"] for name, row in rows.items()}
    assert recalls["rainfusion2"] > recalls["random"]
    assert all(row["of_oracle"]["mean"] <= 1 + 1e-6 for row in rows.values())
    assert rows["random"]["error"]["mean"] > rows["rainfusion2"]["error"]["mean"]


def test_captures_say_where_they_come_from(measured):
    (path,) = (measured[0] / "captures").iterdir()
    facts = read_facts(path)
    assert (facts["model"], facts["seed"], facts["width"], facts["frames"]) == ("shapes", 3, 64, 17)
    assert facts["weights"] and facts["prompt"] == measured[1]["prompts"][0]["prompt"]
    assert [(call.layer, call.step) for call in unpack(path)] == [(0, 1), (5, 1)]


def test_a_killed_run_goes_on_from_its_last_finished_cell(measured):
    folder, record = measured
    cells = folder / "cells.jsonl"
    lines = cells.read_bytes().splitlines(keepends=True)
    cells.write_bytes(b"".join(lines[:-3]) + lines[-3][:40])  # killed while it wrote
    result = rf(*SMALL, "--quick", "-o", folder, "--resume", "--json")
    assert result.exit_code == 0, result.output
    again = json.loads(result.stdout)
    assert again["counts"] == {"measured": 3, "reused": len(lines) - 3, "captured": 0}
    for old, new in zip(record["ideas"], again["ideas"], strict=True):
        assert old.get("recall") == new.get("recall")


def test_other_layers_of_the_same_clip_are_captured_again(measured):
    folder, _ = measured
    result = rf(*SMALL, "--quick", "--layers", "3", "-o", folder, "--resume", "--json")
    assert json.loads(result.stdout)["counts"]["captured"] == 1


def test_renders_are_held_against_the_dense_one_and_finished_ones_stay(tmp_path):
    shapes = presets.load("shapes")
    clip = clip_of(shapes, "a red circle", size="64x64", frames=5, steps=2, guidance=1.0, seed=0)
    settings = dict(sink=False, budget="total", block_size=16, dense_steps=1, kernel="torch-blocks")
    entries = [
        Entry(METHODS, {"method": name, "density": 0.5}, Variant(name, config, 0.5))
        for name in ("rainfusion2", "random")
        for config in [SparseConfig(method=name, **settings)]
    ]
    plan = Plan(
        clips={"64x64": [clip]}, named=[None], layers=(0,), steps=(1,), entries=entries,
        scale=replace(QUICK, densities=(0.5,)),
    )  # fmt: skip
    source = source_of(shapes, dtype="float32", device="cpu")
    ablation = Ablation(tmp_path, plan, load=lambda: load(source), facts={})
    ablation.render(lambda stage, step, steps: None)
    assert ablation.measured == 2
    first, second = record_of(ablation, command="", environment={})["renders"]
    assert 5 < second["psnr"]["mean"] < 100 and second["achieved"]["mean"] == 0.5
    assert first["minus"] is None
    assert second["minus"]["mean"] == second["psnr"]["mean"] - first["psnr"]["mean"]
    again = Ablation(tmp_path, plan, load=lambda: pytest.fail("loaded"), facts={})
    again.render(lambda stage, step, steps: None)
    assert (again.measured, again.reused) == (0, 2)


def test_what_misses_its_density_on_the_calls_is_not_rendered(tmp_path):
    made = ablations.ablation(tmp_path)
    good, bad, refuses = made.plan.entries[:3]
    for index in range(4):
        key = made.key(bad, ablations.SIZE, index, (0, 2))
        made.cells.put(key, ablations.outcome(0.9, density=0.9))
    found = [made._reaches(entry, ablations.SIZE) for entry in (good, bad, refuses)]
    assert found == [True, False, False]


def test_overwriting_forgets_what_was_measured_and_keeps_other_files(tmp_path):
    for name in ("cells.jsonl", "captures/a.safetensors", "renders/a.npz", "captures/mine.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    clear(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


def test_lpips_without_its_package_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = lambda name, *args: None if name == "torchvision" else find(name, *args)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", absent)
    result = rf("--renders", "--lpips", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "error: LPIPS needs torchvision, which is not installed",
        " hint: install it with: pip install 'rainfusion[metrics]'",
    ]
    assert not (tmp_path / "out").exists()


REFUSED = {
    "method": (["--method", "magic"], "no method is called 'magic'"),
    "size": (["--size", "100x7"], "--size 100x7 does not fit shapes"),
    "render-clips": (["--render-clips", "0"], "--render-clips must be at least 1, got 0"),
    "clips": (["--clips", "0"], "--clips must be at least 1, got 0"),
    "seeds": (["--seeds", "one"], "--seeds must be whole numbers, got 'one'"),
    "layers": (["--layers", "9"], "--layers names a layer outside 0 to 5, got '9'"),
    "prompts": (["--model", "wan2.1-1.3b"], "there are no prompts for wan2.1-1.3b"),
    "both": (["--resume", "--overwrite"], "--overwrite and --resume exclude each other"),
}


@pytest.mark.parametrize(("args", "problem"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line(tmp_path, args, problem):
    result = rf("-o", tmp_path / "out", *args)
    assert result.exit_code == 2, result.output
    first, *rest = result.stderr.splitlines()
    assert first.startswith(f"error: {problem}")
    assert len(rest) <= 1 and not (tmp_path / "out").exists()
