import pytest

from rainfusion_core.sink import FirstFrame
from rf_cli import tables
from rf_cli.compare_tables import all_rows, ranges
from tests.cli import comparisons


def test_times_sparsity_and_quality_name_every_arm():
    tables = list(all_rows(comparisons.record()))
    assert [table.title for table in tables] == [
        "Time and speed-up over dense",
        "Sparsity",
        "Quality",
    ]
    assert all([row[0] for row in t.rows] == ["dense", "sparsity 0.5"] for t in tables)
    assert all(len(row) == len(t.columns) for t in tables for row in t.rows)


def test_cells_hold_what_was_measured():
    times, sparsity, quality = (table.rows[1] for table in all_rows(comparisons.record((0.1,))))
    assert times[2:4] == ("2.00 s\n2.00x", "0.50 s\n2.00x")
    assert sparsity[1:] == ("50.0%", "25.0%", "-", "torch-blocks", "sdpa", "steps 0")
    assert quality[1] == "20.00" and quality[3] == "-"


def test_dense_against_itself_is_infinite_and_left_dense_everywhere():
    _, sparsity, quality = (table.rows[0] for table in all_rows(comparisons.record()))
    assert sparsity[-1] == "everything" and quality[1] == "infinite"


def test_several_clips_show_their_interval():
    quality = list(all_rows(comparisons.record()))[2]
    assert " ± " in quality.rows[1][1] and "over 2 clips" in quality.note


def test_runs_of_numbers_are_joined():
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8" and ranges([]) == ""


def test_times_measured_beside_other_programs_say_so():
    comparison = comparisons.record()
    assert "other programs" not in next(all_rows(comparison)).note
    comparison["arms"][1]["clips"][0]["runs"][0]["others"] = 0.5
    assert "other programs kept 50% of the processor busy" in next(all_rows(comparison)).note


def test_an_arm_with_a_mass_target_says_so_and_a_dense_one_does_not():
    record = comparisons.record()
    for arm in record["arms"]:
        arm["config"]["mass"] = 0.9
    sparsity = list(all_rows(record))[1]
    assert [row[1] for row in sparsity.rows] == ["0.0%", "mass 0.9"]


def test_a_render_with_a_mass_target_says_so():
    facts = dict(requested=0.8, achieved=0.4, sparse_calls=1, calls=1, absent_calls_by_reason={})
    facts |= {"first_frame": None}
    record = dict(
        sparsity={**facts, "dense_calls_by_reason": {}}, kernel="", settings={"mass": 0.9}
    )
    first, last = (list(tables.sparsity(record).columns[1].cells)[n] for n in (0, 1))
    assert "mass 0.9" in str(first) and "40.0%" in str(last)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (FirstFrame(True, 4, 20), ("sink", "4 of 20 key blocks that a query block keeps")),
        (FirstFrame(False, 4, 12), ("no sink", "it would be 4 of 12 key blocks that a query block keeps")),
        (FirstFrame(False, 0, 0), ("no sink", "an image has none")),
    ],
    ids=["sink", "too-large", "image"],
)  # fmt: skip
def test_a_render_says_whether_the_first_frame_is_a_sink(found, said):
    facts = dict(requested=0.8, achieved=0.4, sparse_calls=1, calls=1, absent_calls_by_reason={})
    facts |= {"dense_calls_by_reason": {}, "first_frame": found._asdict()}
    table = tables.sparsity(dict(sparsity=facts, kernel="", settings={}))
    assert tuple(str([*column.cells][3]) for column in table.columns) == ("first frame", *said)
    record = comparisons.record()
    record["arms"][1]["sparsity"]["first_frame"] = found._asdict()
    rows = list(all_rows(record))[1]
    place = rows.columns.index("first frame")
    assert [row[place] for row in rows.rows] == ["-", said[0]]


def test_layers_without_a_call_are_shown_with_the_reason():
    facts = dict(requested=0.8, achieved=0.4, sparse_calls=1, calls=1, first_frame=None)
    facts |= {"dense_calls_by_reason": {}, "absent_calls_by_reason": {"it was replaced": 3}}
    table = tables.sparsity(dict(sparsity=facts, kernel="", settings={}))
    label, value, note = ([*column.cells][-1] for column in table.columns)
    assert (str(label), str(value)) == ("no call: it was replaced", "3") and "no number" in note
    record = comparisons.record()
    record["arms"][1]["sparsity"]["absent_calls_by_reason"] = {"it was replaced": 3}
    sparsity = list(all_rows(record))[1]
    assert sparsity.rows[1][-1].endswith("; 3 layers without a call: it was replaced")
    assert "without a call" not in sparsity.rows[0][-1]
