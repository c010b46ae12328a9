"""Writes what an ablation found: record, plots, and one page that holds them all."""

import base64
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from rf_cli import media, saving
from rf_cli.ablate_plan import METHODS, near_a_fifth
from rf_cli.ablate_sections import PAGE, RECORD, TABLES, reached, sections
from rf_cli.plots import Point, plot
from rf_cli.sections import text

TEMPLATE = Path(__file__).with_name("ablate_page.html")


def write(record: dict[str, Any], folder: Path) -> None:
    """All files of the record, the record itself last."""
    drawn = plots(record)
    for name, content in drawn.items():
        saving.write(folder / name, content)
    media.write_text(folder / PAGE, page(record, drawn))
    media.write_text(folder / TABLES, text(record, sections(record), "md"))
    record["files"] = [*drawn, PAGE, TABLES, RECORD]
    media.write_json(folder / RECORD, record)


def plots(record: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name: recall over density, error per layer, cost over error; for each size.

    A method has the same colour in all of them if it reaches the same densities.
    """
    drawn: dict[str, bytes] = {}
    for size in record["settings"]["sizes"]:
        rows = [row for row in record[METHODS] if row["size"] == size and reached(row)]
        if not rows:
            continue  # methods that miss a density would only squeeze the picture
        drawn |= {
            f"recall-{size}.png": plot(
                _series(rows, "achieved", "recall"), title=f"Recall of softmax mass, {size}",
                x="share of block pairs kept", y="recall",
            ),
            f"layers-{size}.png": plot(
                _layers(record, size, {row["method"] for row in rows}), title=f"Output error of each layer, {size}",
                x="layer", y="relative error",
            ),
            f"cost-{size}.png": plot(
                _costs(rows), title=f"Cost of predicting and error, {size}",
                x="ms to find order and blocks of one call", y="relative error", joined=False,
                log_x=True,
            ),
        }  # fmt: skip
    return drawn


def _series(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> dict[str, list[Point]]:
    series: dict[str, list[Point]] = {}
    for row in rows:
        point = Point(row[x]["mean"], row[y]["mean"], row[y]["low"], row[y]["high"])
        series.setdefault(row["method"], []).append(point)
    return {name: sorted(points) for name, points in series.items()}


def _layers(record: Mapping[str, Any], size: str, names: Collection[str]) -> dict[str, list[Point]]:
    rows = [r for r in record["per_layer"] if r["size"] == size and r["method"] in names]
    series: dict[str, list[Point]] = {}
    for row in rows:
        if row["density"] == near_a_fifth(each["density"] for each in rows):
            error = row["error"]
            point = Point(row["layer"], error["mean"], error["low"], error["high"])
            series.setdefault(row["method"], []).append(point)
    return series


def _costs(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    series = {}
    for row in rows:
        if row["density"] == near_a_fifth(each["density"] for each in rows):
            error = row["error"]
            cost = max(row["predict_ms"]["mean"], 1e-3)
            series[row["method"]] = [Point(cost, error["mean"], error["low"], error["high"])]
    return series


def page(record: Mapping[str, Any], drawn: Mapping[str, bytes]) -> str:
    """One HTML file that needs no other file and no network."""
    settings = record["settings"]
    facts = [
        settings["model"], ", ".join(settings["sizes"]), f"{settings['frames']} frames",
        f"layers {', '.join(map(str, settings['layers']))}",
        f"steps {', '.join(map(str, settings['steps']))} of {settings['clip_steps']}",
        settings["dtype"], record["environment"]["device_name"],
    ]  # fmt: skip
    prompts = sorted({clip["prompt"] for clip in record["prompts"]})
    parts = {
        "title": "Which blocks matter, and who finds them",
        "facts": escape("; ".join(facts)),
        "plots": "".join(_image(name, content) for name, content in drawn.items()),
        "tables": "".join(map(_table, sections(record))),
        "command": escape(record["command"]),
        "prompts": "".join(f"<li>{escape(prompt)}</li>" for prompt in prompts),
    }
    head, *rest = TEMPLATE.read_text("utf-8").split("{{")
    # one pass, so that a prompt with braces stays what it is
    return head + "".join(
        parts[name] + tail for name, _, tail in (piece.partition("}}") for piece in rest)
    )


def _image(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(section: Any) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in section.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in section.rows
    )
    return (
        f'<h2>{escape(section.title)}</h2><div class="card scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="dim">{escape(section.note)}</p>'
    )
