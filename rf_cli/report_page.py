"""The report page of a comparison: one HTML file that needs no other file and no network."""

import base64
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from rf_cli import charts
from rf_cli.compare_tables import Rows, all_rows

TEMPLATE = Path(__file__).with_name("report_page.html")


def page(record: dict[str, Any], folder: Path) -> str:
    """The page of a record, with the videos of the folder inside it."""
    arms = [arm["name"] for arm in record["arms"]]
    colours = {name: charts.COLOURS[i % len(charts.COLOURS)] for i, name in enumerate(arms)}
    parts = {
        "title": escape(_title(record)),
        "facts": escape(_facts(record)),
        "tables": "".join(map(_table, all_rows(record))),
        "clips": "".join(_clip(record, index, folder, colours) for index in range(record["clips"])),
        "maps": _maps(record, colours),
        "command": escape(record["command"]),
        "settings": escape(json.dumps(
            {key: record.get(key) for key in ("settings", "environment")}, indent=2, ensure_ascii=False
        )),
    }  # fmt: skip
    text = TEMPLATE.read_text("utf-8")
    head, *rest = text.split("{{")
    # one pass, so that a prompt with braces stays what it is
    return head + "".join(
        parts[name] + tail for name, _, tail in (piece.partition("}}") for piece in rest)
    )


def _title(record: Mapping[str, Any]) -> str:
    prompts = list(dict.fromkeys(clip["prompt"] for clip in record["prompts"]))
    return prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts compared"


def _facts(record: Mapping[str, Any]) -> str:
    video, device = record["video"], record["environment"]["device_name"]
    facts = [
        f"{video['width']}x{video['height']}",
        f"{video['frames']} frames",
        f"{video['fps']:g} a second",
    ]
    if settings := record.get("settings"):
        facts = [settings["model"], *facts, f"{settings['steps']} steps", settings["dtype"], device]
    return ", ".join([*facts, record["source"]])


def _table(rows: Rows) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in rows.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows.rows
    )
    return (
        f'<h2>{escape(rows.title)}</h2><div class="card scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="dim note">{escape(rows.note)}</p>'
    )


def _clip(record: dict[str, Any], index: int, folder: Path, colours: Mapping[str, str]) -> str:
    arms, facts = record["arms"], record["prompts"][index]
    seed = "" if facts["seed"] is None else f", seed {facts['seed']}"
    figures = "".join(
        _figure(folder / arm["clips"][index]["video"], arm["name"], colours[arm["name"]])
        for arm in arms
    )
    beside = _figure(
        folder / facts["side_by_side"], "side by side, with the amplified difference", ""
    )
    psnr = {
        arm["name"]: [float(value) for value in arm["clips"][index]["metrics"]["psnr_frames"]]
        for arm in arms[1:]
    }
    chart = charts.lines(psnr, label="PSNR of every frame", colours=colours)
    legend = "".join(f"<span>{_swatch(colours[name])}{escape(name)}</span>" for name in psnr)
    frames, fps = record["video"]["frames"], record["video"]["fps"]
    return (
        f"<h2>{escape(facts['prompt'])}{seed}</h2>"
        f'<section class="clip card" data-fps="{fps}" data-frames="{frames}">'
        f'<div class="arms">{figures}</div>{_controls(frames)}'
        f'<div class="wide">{beside}</div>'
        f'<h3>PSNR of every frame, dB</h3>{chart}<p class="legend">{legend}</p></section>'
    )


def _controls(frames: int) -> str:
    rates = "".join(
        f'<option value="{rate}"{" selected" if rate == 1 else ""}>{rate}x</option>'
        for rate in (0.1, 0.25, 0.5, 1, 2)
    )
    return (
        '<div class="controls"><button class="play">play</button>'
        '<button class="back" aria-label="one frame back">&lsaquo;</button>'
        '<button class="next" aria-label="one frame on">&rsaquo;</button>'
        f'<input type="range" min="0" max="{frames - 1}" value="0" aria-label="frame">'
        f'<output>frame 1 of {frames}</output><select aria-label="speed">{rates}</select></div>'
    )


def _figure(video: Path, caption: str, colour: str) -> str:
    data = base64.b64encode(video.read_bytes()).decode()
    return (
        '<figure><video muted playsinline preload="auto" '
        f'src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{_swatch(colour) if colour else ''}{escape(caption)}</figcaption></figure>"
    )


def _swatch(colour: str) -> str:
    return f'<span class="swatch" style="background:{colour}"></span>'


def _maps(record: dict[str, Any], colours: Mapping[str, str]) -> str:
    sparse = [arm for arm in record["arms"] if arm.get("sparsity", {}).get("sparse_calls")]
    if not sparse:
        return ""
    drawn = "".join(
        f"<h3>{escape(arm['name'])}</h3>"
        + charts.layer_step_map(
            arm["sparsity"]["per_layer_and_step"],
            label=f"achieved sparsity of {arm['name']}",
            colour=colours[arm["name"]],
        )
        for arm in sparse
    )
    note = (
        "a row a layer, a column a step; the darker, the more was skipped; an empty cell ran dense"
    )
    return f'<h2>Achieved sparsity of every layer and step</h2><div class="card">{drawn}<p class="dim">{note}</p></div>'
