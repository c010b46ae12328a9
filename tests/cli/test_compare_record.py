import json
import math

import pytest

from rf_cli import compare_record
from tests.cli import comparisons


def test_speedups_are_dense_over_the_arm_for_each_stage():
    dense, sparse = comparisons.record()["arms"]
    assert dense["speedup"]["total"]["mean"] == 1
    assert sparse["speedup"]["total"]["mean"] == pytest.approx(4.3 / 2.3)
    assert sparse["speedup"]["denoising"]["mean"] == pytest.approx(2)
    assert sparse["timing_s"]["attention"]["median"] == pytest.approx(0.5)


def test_metrics_are_means_over_clips_with_an_interval():
    metrics = comparisons.record()["arms"][1]["metrics"]["psnr"]
    a, b = (-20 * math.log10(error) for error in (0.1, 0.2))
    assert metrics["mean"] == pytest.approx((a + b) / 2, abs=1e-4)
    assert metrics["half_width"] == pytest.approx(12.7062 * abs(a - b) / 2, rel=1e-3)


def test_achieved_sparsity_counts_dense_steps():
    facts = comparisons.record()["arms"][1]["sparsity"]
    assert (facts["requested"], facts["achieved"]) == (0.5, 0.25)
    assert facts["left_dense"] == [
        {"reason": "dense step", "calls": 4, "steps": [0], "layers": [0, 1]}
    ]
    assert [row["steps"] for row in facts["per_layer_and_step"]] == [[0.0, 0.5], [0.0, 0.5]]


def test_the_record_is_strict_json_with_infinity_as_text():
    text = json.dumps(comparisons.record(), allow_nan=False)
    assert json.loads(text)["arms"][0]["metrics"]["psnr"]["mean"] == "Infinity"
    assert compare_record.plain({"x": (1.0, math.inf)}) == {"x": [1.0, "Infinity"]}
