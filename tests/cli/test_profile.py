"""`rf profile` as a command, on a clip of 128 tokens; what it measures is tested in tests/core."""

import csv
import json

import pytest
from typer.testing import CliRunner

from rf_cli import presets
from rf_cli.app import app
from rf_cli.commands.profile import read_sparsities

SMALL = ["--size", "64x64", "--frames", "5", "--layers", "1", "--device", "cpu"]


def rf(*args: str, **env: str):
    return CliRunner().invoke(app, ["profile", *args], env={"COLUMNS": "200", **env})


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """(result, record, folder) of one profile that writes everything."""
    folder = tmp_path_factory.mktemp("profile")
    result = rf(
        *SMALL, "--sparsity", "0.9,0.5", "--steps", "10", "--dense-steps", "2",
        "--save", str(folder / "out.json"), "--chart", str(folder / "out.png"),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result, json.loads((folder / "out.json").read_text()), folder


def test_the_record_says_what_was_measured(profiled):
    _, record, _ = profiled
    work = record["workload"]
    assert (work["tokens"], work["layers"], work["layers_run"], work["passes"]) == (128, 6, 1, 2)
    assert [arm["sparsity"] for arm in record["arms"]] == [0, 0.5, 0.9]
    for arm in record["arms"]:
        assert arm["sum_of_parts_s"] <= arm["seconds"]
        assert sum(arm["parts_s"].values()) == pytest.approx(arm["sum_of_parts_s"])


def test_the_record_and_the_columns_name_the_method_of_the_sparse_arms(profiled):
    result, record, _ = profiled
    named = [(arm["method"], arm["order"]) for arm in record["arms"]]
    assert named == [(None, None), ("rainfusion2", "compact"), ("rainfusion2", "compact")]
    assert "rainfusion2 0.5" in result.stdout and "rainfusion2 0.9" in result.stdout


@pytest.mark.parametrize(
    ("args", "method", "order", "option"),
    [
        (["--method", "svg2"], "svg2", "own", ("rounds", 2)),
        (
            ["--method", "xattention", "--method-option", "stride=16", "--order", "frame"],
            "xattention", "frame", ("stride", 16),
        ),
    ],
)  # fmt: skip
def test_another_method_is_profiled_and_named(tmp_path, args, method, order, option):
    path = tmp_path / "out.json"
    result = rf(*SMALL, *args, "--sparsity", "0.5", "--save", str(path))
    assert result.exit_code == 0, result.output
    sparse = json.loads(path.read_text())["arms"][1]
    assert (sparse["method"], sparse["order"]) == (method, order)
    assert option in sparse["options"].items() and sparse["density"] < 1
    assert f"{method} 0.5" in result.stdout and f"{method}: order {order}, " in result.stdout


def test_every_sparsity_is_predicted_for_both_schedules(profiled):
    _, record, _ = profiled
    rows = [
        (row["sparsity"], row["dense_steps"], row["sparse_share"]) for row in record["predictions"]
    ]
    share = 4 / 6  # the preset leaves two of the six layers dense
    expected = [
        (s, steps, left * share) for s in (0.5, 0.9) for steps, left in ((0, 1.0), (2, 0.8))
    ]
    assert rows == [pytest.approx(row) for row in expected]
    assert set(record["sparsity_needed"]) == {"1.5", "2"}
    assert [row["sparsity"] for row in record["break_even"]] == [0.5, 0.9]


def test_dense_layers_are_predicted_as_asked(tmp_path):
    path = tmp_path / "out.json"
    given = ["--sparsity", "0.5", "--dense-steps", "0", "--dense-layers", "1-3"]
    result = rf(*SMALL, *given, "--save", str(path))
    assert result.exit_code == 0, result.output
    (row,) = json.loads(path.read_text())["predictions"]
    assert row["dense_layers"] == [1, 2, 3] and row["sparse_share"] == pytest.approx(0.5)


def test_sizes_of_the_preset_have_their_tokens(profiled):
    _, record, _ = profiled
    assert {row["size"]: row["tokens"] for row in record["sizes"]}["128x128"] == 2304


def test_tables_label_estimates_and_say_once_what_random_weights_prove(profiled):
    out = profiled[0].stdout
    assert out.count("Random weights prove speed, not quality.") == 1
    assert "Predicted denoising of 10 steps (estimate)" in out
    assert "all 6 layers (estimate)" in out and "1 of 6 layers" in out


def test_the_chart_is_written(profiled):
    assert (profiled[2] / "out.png").read_bytes().startswith(b"\x89PNG")


def test_all_lists_every_preset_without_weights_or_network(tmp_path):
    result = rf("--all", "--format", "csv", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert result.exit_code == 0, result.output
    found = dict(list(csv.reader(result.stdout.splitlines()))[1:])
    assert [found[f"models.{n}.model"] for n in range(len(presets.names()))] == presets.names()
    at = presets.names().index("wan2.1-14b")
    assert found[f"models.{at}.tokens"] == "75600"
    assert float(found[f"models.{at}.attention_share"]) == pytest.approx(0.68, abs=0.01)
    assert 1 < float(found[f"models.{at}.speedup"]) < 3


def test_sparsities_are_sorted_and_each_once():
    assert read_sparsities("0.9,0.5,0.9") == [0.5, 0.9]


REFUSED = {
    "format": (["--format", "xml"], "no format is called 'xml'"),
    "format-all": (["--all", "--format", "xml"], "no format is called 'xml'"),
    "save-suffix": (["--save", "out.doc"], "--save must end in .json or .csv or .md or .txt"),
    "save-folder": (["--save", "no/such/out.md"], "there is no folder no/such"),
    "chart-suffix": (["--chart", "out.gif"], "--chart must end in .png"),
    "chart-all": (["--all", "--chart", "out.png"], "--chart draws one model"),
    "sparsity": (["--sparsity", "much"], "--sparsity must list numbers, got 'much'"),
    "sparsity-zero": (["--sparsity", "0,0.5"], "--sparsity lists 0, which is dense"),
    "sparsity-percent": (["--sparsity", "80"], "sparsity must be in [0, 1), got 80"),
    "method": (["--method", "magic"], "no method is called 'magic'"),
    "method-option": (
        ["--method-option", "pace=3"],
        "no option of method rainfusion2 is called 'pace'",
    ),
    "order": (["--order", "magic"], "no token order is called 'magic'"),
    "order-of-its-own": (
        ["--method", "svg2", "--order", "raster"],
        "method svg2 orders the tokens itself",
    ),
    "weights": (["--weights", "good"], "no kind of weights is called 'good'"),
    "dense-layers": (
        ["--dense-layers", "0,9"],
        "dense_layers names layer 9, the model has layers 0 to 5",
    ),
    "layers": (["--layers", "7"], "layers must be in [1, 6], got 7"),
    "size": (["--size", "100x7"], "--size 100x7 does not fit shapes"),
    "model": (["--model", "wan9"], "no model is called 'wan9'"),
    "real": (["-m", "wan2.1-14b", "--weights", "real"], "the weights of Wan-AI/"),
    "measure": (["-m", "wan2.1-14b", "--measure"], "--measure needs the weights of Wan-AI/"),
}


@pytest.mark.parametrize(("args", "problem"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line(monkeypatch, tmp_path, args, problem):
    monkeypatch.chdir(tmp_path)
    if "wan2.1-14b" in args:
        args = [*args, "--size", "832x480", "--frames", "5", "--dtype", "bfloat16"]
    result = rf(*args, "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith(f"error: {problem}")
    assert len(rest) <= 1 and all(line.startswith(" hint: ") for line in rest)
    assert list(tmp_path.iterdir()) == []


def test_memory_too_small_is_one_clear_line(monkeypatch):
    from rainfusion_core import profile as profiling

    monkeypatch.setattr(profiling, "free_bytes", lambda device: 10**6)
    result = rf(*SMALL)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: memory is too small for 128 tokens on cpu: one layer")


def test_stages_are_timed_and_enter_the_whole_render(tmp_path):
    result = rf(*SMALL, "--sparsity", "0.8", "--stages", "--save", str(tmp_path / "out.json"))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out.json").read_text())
    assert set(record["stages"]) == {"text encoding", "decoding"}
    assert min(record["stages"].values()) > 0 and "whole render" in result.stdout
