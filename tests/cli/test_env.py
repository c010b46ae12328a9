import json

from typer.testing import CliRunner

from rainfusion_core import kernels
from rainfusion_core.kernels import KERNELS
from rainfusion_core.kernels.dense import DENSE_KERNELS
from rf_cli.app import app


def rf(*args: str):
    return CliRunner().invoke(app, ["env", *args], env={"COLUMNS": "160"})


def test_json_names_versions_device_and_every_kernel():
    record = json.loads(rf("--json", "--device", "cpu").stdout)
    assert {"rf", "python", "torch", "diffusers", "transformers", "triton"} <= set(record)
    assert record["device"] == "cpu" and record["threads"] >= 1
    assert list(record["kernels"]) == list(KERNELS)
    assert list(record["dense_kernels"]) == list(DENSE_KERNELS)
    assert 0 < record["memory_gib"]["free"] <= record["memory_gib"]["total"]


def test_a_kernel_that_cannot_run_has_a_reason(monkeypatch):
    reasons = {"triton-blocks": "it needs a GPU"}
    monkeypatch.setattr(kernels, "unavailable_reason", lambda name, *call: reasons.get(name))
    record = json.loads(rf("--json", "--device", "cpu").stdout)
    assert record["kernels"]["reference"] is None
    assert record["kernels"]["triton-blocks"] == "it needs a GPU"
    assert "it needs a GPU" in rf("--device", "cpu").stdout
    assert record["dense_kernels"] == {
        "sdpa": None, "sdpa-flash": "not for cpu", "sdpa-cudnn": "not for cpu",
        "sdpa-efficient": "not for cpu", "blocks": None,
    }  # fmt: skip


def test_tables_name_every_kernel():
    out = rf("--device", "cpu").stdout
    assert [name for name in (*KERNELS, *DENSE_KERNELS) if name not in out] == []


def test_an_unknown_device_is_refused():
    result = rf("--device", "abacus")
    assert result.exit_code == 2 and result.stderr.startswith("error: device must be auto, cpu")
