import io
import json
import re

import pytest
from PIL import Image

from rf_cli import ablate_pages
from rf_cli.ablate_sections import brief, interval, sections
from rf_cli.sections import text
from tests.cli import ablations
from tests.cli.test_report_page import Tags


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    return ablations.record(tmp_path_factory.mktemp("ablation"))


@pytest.fixture(scope="module")
def page(record):
    return ablate_pages.page(record, ablate_pages.plots(record))


def test_the_page_is_well_nested_and_fetches_nothing(page):
    tags = Tags(page.replace("<img", "<input"))  # neither is ever closed
    assert tags.open == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert page.count('src="data:image/png;base64,') == 3


def test_prompts_are_shown_as_they_are_and_never_as_markup(page):
    assert "<li>a {{red}} &lt;circle&gt;</li>" in page


def test_there_is_a_plot_of_each_kind_for_every_size(record):
    drawn = ablate_pages.plots(record)
    assert list(drawn) == ["recall-32x32.png", "layers-32x32.png", "cost-32x32.png"]
    for content in drawn.values():
        assert Image.open(io.BytesIO(content)).format == "PNG"


def test_every_file_that_the_record_names_is_written(record, tmp_path):
    ablate_pages.write(record, tmp_path)
    written = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(written["files"])


def test_the_best_method_of_a_size_and_density_comes_first(record):
    league = sections(record)[0]
    assert [row[0] for row in league.rows] == ["good", "bad", "refuses"]
    assert league.rows[2][3] == "cannot"


def test_tables_name_the_difference_to_the_first_value(record):
    sink = next(s for s in sections(record) if "sink" in s.title)
    assert {row[0]: row[-2] for row in sink.rows} == {"on": "", "off": "+0.000 [+0.000, +0.000]"}


def test_the_short_tables_fit_a_terminal(record):
    shown = text(record, brief(record), "table")
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 120


def test_intervals_as_text():
    assert interval(None, 2) == "-"
    assert interval({"mean": 1.5, "low": None, "high": None}, 1) == "1.5"
    assert interval({"mean": 0.25, "low": 0.2, "high": 0.3}, 2, sign=True) == "+0.25 [+0.20, +0.30]"
    assert interval({"mean": "Infinity", "low": 1.0, "high": 2.0}, 1) == "infinite"
