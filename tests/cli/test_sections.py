import csv
import io
import json

from rf_cli.sections import Section, text

RECORD = {"arms": [{"seconds": 0.5, "kernel": "a,b"}, {"seconds": 1.5, "kernel": None}], "n": 3}
SECTIONS = [Section("Parts", ["part", "ms"], [("rest", "1.5"), ("a|b", "2")], "Measured.")]


def test_json_is_the_record():
    assert json.loads(text(RECORD, SECTIONS, "json")) == RECORD


def test_csv_has_a_line_a_value_under_its_path():
    rows = list(csv.reader(io.StringIO(text(RECORD, SECTIONS, "csv"))))
    assert rows == [
        ["key", "value"], ["arms.0.seconds", "0.5"], ["arms.0.kernel", "a,b"],
        ["arms.1.seconds", "1.5"], ["arms.1.kernel", ""], ["n", "3"],
    ]  # fmt: skip


def test_markdown_is_a_table_with_escaped_bars():
    assert text(RECORD, SECTIONS, "md") == (
        "### Parts\n\n| part | ms |\n| --- | ---: |\n| rest | 1.5 |\n| a\\|b | 2 |\n\nMeasured.\n"
    )


def test_a_table_shows_every_cell_and_the_note():
    shown = text(RECORD, SECTIONS, "table")
    assert all(word in shown for word in ("Parts", "part", "ms", "rest", "1.5", "Measured."))
