import pytest

from rainfusion_core.report import StageTimes
from rf_cli.profile_measure import comparison

DENSE = StageTimes(text_encoding=1.0, steps=(4.0, 4.0), attention=6.0, decoding=1.0, total=11.0)
SPARSE = StageTimes(text_encoding=1.0, steps=(2.0, 3.0), attention=3.0, decoding=1.0, total=8.0)
GUESS = {"dense_s": 9.0, "denoising_s": 6.0, "speedup": 1.5}


def test_the_prediction_stands_beside_what_was_measured():
    denoising, whole = comparison(0.8, DENSE, SPARSE, GUESS)
    assert denoising == {
        "sparsity": 0.8, "what": "denoising", "dense_s": 8.0, "sparse_s": 5.0, "speedup": 1.6,
        "predicted_speedup": 1.5,
    }  # fmt: skip
    assert whole["speedup"] == 11 / 8
    # 3 s of the dense render are not denoising
    assert whole["predicted_speedup"] == pytest.approx(12 / 9)
