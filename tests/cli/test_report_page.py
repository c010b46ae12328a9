import re
from html.parser import HTMLParser

import pytest

from rf_cli import media
from rf_cli.report_page import page
from tests.cli import comparisons

VOID = {"meta", "link", "input"}


class Tags(HTMLParser):
    """Collects (tag, attributes); fails on an element that is closed but was never opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    media.write_video(folder / "a.mp4", comparisons.frames(), fps=8, settings={})
    return page(comparisons.record(), folder)


def test_the_elements_are_well_nested(text):
    assert Tags(text).open == []


def test_every_arm_and_the_side_by_side_of_every_clip_are_inside(text):
    videos = Tags(text).all("video")
    assert len(videos) == 2 * 3
    assert all(video["src"].startswith("data:video/mp4;base64,AAAA") for video in videos)


def test_nothing_is_fetched_from_anywhere(text):
    found = [a[k] for _, a in Tags(text).found for k in ("src", "href") if k in a]
    assert found and all(link.startswith("data:") for link in found)
    assert not re.search(r"https?://|@import|url\(", text)
    policy = Tags(text).all("meta")[2]["content"]
    assert policy.startswith("default-src 'none';")


def test_it_fits_a_phone(text):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in Tags(text).all(
        "meta"
    )


def test_there_is_a_table_a_line_chart_a_map_and_the_command(text):
    assert text.count("<table>") == 3
    assert text.count("<polyline") == 2 and text.count("<rect") == 4
    assert "rf compare x" in text


def test_prompts_are_shown_as_they_are_and_never_as_markup(text):
    assert "a {{red}} &lt;circle&gt;, seed 1" in text and "<circle>" not in text
