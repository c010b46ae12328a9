from rf_cli.profile_sections import _sinks, measured, predictions, what_it_takes

ROW = {
    "sparsity": 0.8, "dense_steps": 2, "dense_last_steps": 1, "dense_layers": [0, 4], "attention_speedup": 4.0,
    "dense_s": 20.0, "denoising_s": 10.0, "speedup": 2.0,
}  # fmt: skip


def record(stages):
    return {"workload": {"steps": 10}, "predictions": [ROW], "stages": stages, "formula": "a = b"}


def test_predictions_are_labelled_with_their_formula():
    section = predictions(record(None))
    assert "estimate" in section.title and section.note == "Estimate: a = b."
    assert section.rows == [["0.8", "2,1", "0, 4", "4.00x", "20.00", "10.00", "2.00x"]]


def test_the_note_says_at_which_sparsities_the_first_frame_is_a_sink():
    def arm(sparsity, sink):
        return {"sparsity": sparsity, "first_frame": {"sink": sink} if sparsity else None}

    assert _sinks([arm(0, None), arm(0.5, True), arm(0.6, True), arm(0.9, False)]) == (
        "First frame: a sink at sparsity 0.5, 0.6."
    )
    assert _sinks([arm(0, None), arm(0.9, False)]) == "First frame: no sink."


def test_the_whole_render_counts_the_other_stages():
    section = predictions(record({"text encoding": 2.0, "decoding": 8.0}))
    assert section.columns[-1] == "whole render" and section.rows[0][-1] == "1.50x"


def test_a_target_out_of_reach_is_said():
    found = what_it_takes({"sparsity_needed": {"1.5": 0.6, "2": None}, "break_even": []})
    assert [row[:2] for row in found.rows] == [
        ("sparsity for 1.5x", "0.6"), ("sparsity for 2x", "not reached"),
    ]  # fmt: skip


def test_a_prediction_that_is_too_good_is_off_by_more_than_nothing():
    row = {
        "sparsity": 0.8, "what": "denoising", "dense_s": 20.0, "sparse_s": 10.0, "speedup": 2.0,
        "predicted_speedup": 2.2,
    }  # fmt: skip
    assert measured({"measured": [row]}).rows[0][-1] == "+10.0%"
