import io
import json
import re

import pytest
from PIL import Image

from rf_cli import ablate_pages
from rf_cli.ablate_sections import brief, interval, sections, verdicts
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


def test_the_least_error_of_a_density_comes_first_and_what_misses_it_last(tmp_path):
    league = sections(ablations.record(tmp_path, {"method good": 0.8, "method bad": 0.4}))[0]
    assert league.title == "Methods at 20%"
    assert [row[0] for row in league.rows] == ["good", "bad", "refuses"]
    assert league.rows[2][1] == "cannot"
    made = ablations.record(tmp_path / "again", {"method bad": 0.9})
    for row in made["methods"]:
        if row["method"] == "bad":
            row["achieved"]["mean"] = 0.9
    assert [row[0] for row in sections(made)[0].rows] == ["good", "refuses", "bad"]


def test_a_method_is_better_or_worse_only_where_the_interval_leaves_out_0(tmp_path, monkeypatch):
    names = ("rainfusion2", "finds more", "finds less", "the same")
    entries = [ablations.entry("methods", method=name) for name in names]
    monkeypatch.setattr(ablations.plan, "__defaults__", (entries,))
    monkeypatch.setattr(ablations, "ENTRIES", entries)
    recalls = {"method finds more": 0.7, "method finds less": 0.4}
    made = ablations.ablation(tmp_path, recalls)
    for entry, psnr in zip(entries, (20.0, 19.0, 24.0, 20.0), strict=True):
        for index, more in enumerate((0.0, 2.0)):
            made.cells.put(
                made.render_key(entry, ablations.SIZE, index), ablations.rendered(psnr + more)
            )
    record = ablations.ablate_record.record(made, command="", environment={})
    (error, psnr) = verdicts(record).rows
    assert error == ("20%", "error", "finds more", "the same", "finds less", "", "")
    assert psnr == ("20%", "PSNR", "finds less", "the same", "finds more", "", "")
    league = sections(record)[0]
    place = league.columns.index("error minus rainfusion2's")
    shown = {row[0]: row[place] for row in league.rows}
    assert shown["finds more"] == "-0.200 [-0.200, -0.200]" and shown["rainfusion2"] == ""
    place = league.columns.index("PSNR minus rainfusion2's")
    assert {row[place] for row in league.rows} == {
        "-", "-1.0 [-1.0, -1.0]", "+4.0 [+4.0, +4.0]", "+0.0 [+0.0, +0.0]",
    }  # fmt: skip


def test_who_keeps_more_is_not_called_better_nor_who_keeps_less_worse(tmp_path, monkeypatch):
    names = ("rainfusion2", "better with more", "better with less", "worse with less")
    entries = [ablations.entry("methods", method=name) for name in names]
    monkeypatch.setattr(ablations.plan, "__defaults__", (entries,))
    monkeypatch.setattr(ablations, "ENTRIES", entries)
    recalls = {f"method {name}": 0.7 if "better" in name else 0.4 for name in names[1:]}
    made = ablations.record(tmp_path, recalls)
    for row in made["methods"]:
        row["achieved"]["mean"] += {"more": 0.03, "less": -0.03}.get(row["method"].split()[-1], 0)
    assert verdicts(made).rows == [
        ("20%", "error", "better with less", "", "", "better with more", "worse with less")
    ]


def test_the_layer_that_finds_least_of_the_mass_comes_first(tmp_path):
    made = ablations.ablation(tmp_path)
    for index in range(4):
        key = made.key(made.plan.entries[0], ablations.SIZE, index, (3, 2))
        made.cells.put(key, ablations.outcome(0.3))
    record = ablations.ablate_record.record(made, command="", environment={})
    for shown in (sections(record), brief(record)):
        (layers,) = (section for section in shown if section.title == "Layers")
        assert [row[0] for row in layers.rows] == ["3", "0"]
        assert layers.rows[0][1].startswith("0.300") and "; good, 20% asked" in layers.note


def test_one_layer_is_not_held_against_others(record):
    alone = {**record, "per_layer": [row for row in record["per_layer"] if row["layer"] == 0]}
    assert "Layers" not in [section.title for section in sections(alone)]


def test_the_tables_of_the_page_are_there_as_markdown_too(record, tmp_path):
    ablate_pages.write(record, tmp_path)
    written = (tmp_path / "tables.md").read_text("utf-8")
    for section in sections(record):
        assert f"### {section.title}\n" in written


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
