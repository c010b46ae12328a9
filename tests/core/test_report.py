import pytest

from rainfusion_core.report import AttentionSpeed, CallRow, SparsityReport


def row(step, layer, kept, reason=None):
    return CallRow(step, "cond", "transformer", layer, reason, kept, 10, 0.5)


REPORT = SparsityReport(
    requested=0.8,
    rows=(row(0, 0, 10, "dense step"), row(0, 1, 10, "dense step"), row(1, 0, 2), row(1, 1, 4)),
    kernel="torch-blocks",
    dense_kernel="sdpa",
)


def test_dense_calls_count_as_nothing_skipped():
    assert REPORT.achieved == pytest.approx(1 - 26 / 40)


def test_rows_of_layers_and_of_steps_add_up_to_the_whole():
    for rows in (REPORT.per_layer(), REPORT.per_step()):
        kept, pairs = (sum(row[key] for row in rows) for key in ("kept_pairs", "pairs"))
        assert 1 - kept / pairs == pytest.approx(REPORT.achieved)
    assert [row["sparsity"] for row in REPORT.per_layer()] == pytest.approx([0.4, 0.3])
    assert [row["sparse_calls"] for row in REPORT.per_step()] == [0, 2]


def test_reasons_are_counted():
    assert REPORT.dense_reasons() == {"dense step": 2}


def test_attention_time_is_that_of_all_calls():
    assert REPORT.attention_seconds == 2.0


def test_a_run_without_calls_skipped_nothing():
    assert SparsityReport(0.8, (), "", "").achieved == 0.0


def test_speedup_is_dense_over_sparse():
    speed = AttentionSpeed(8, 1, 64, "float32", 2.0, 9.0, "torch-blocks", "sdpa", 3)
    assert speed.speedup == 4.5
