"""A result as sections, and sections as text: Rich tables, Markdown, CSV, JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

FORMATS = ("table", "json", "csv", "md")


@dataclass(frozen=True)
class Section:
    """One table of a result; `note` says below it what the numbers are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def text(record: Mapping[str, Any], sections: Sequence[Section], form: str) -> str:
    """The result in one of `FORMATS`. JSON and CSV hold the record, the others the sections."""
    if form == "json":
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        return _csv(record)
    return _markdown(sections) if form == "md" else _plain(sections)


def show(sections: Sequence[Section], console: Console) -> None:
    for section in sections:
        console.print(_table(section))
        if section.note:
            console.print(f"[dim]{section.note}[/]", highlight=False)


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold", header_style="dim")
    for number, column in enumerate(section.columns):
        first = number == 0
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for row in section.rows:
        table.add_row(*row)
    return table


def _plain(sections: Sequence[Section]) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(sections, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _markdown(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        lines = [f"### {section.title}", "", _row(section.columns)]
        lines.append(_row(["---", *["---:"] * (len(section.columns) - 1)]))
        lines += [_row(row) for row in section.rows]
        lines += ["", section.note] if section.note else []
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _csv(record: Mapping[str, Any]) -> str:
    """Two columns: the path of a value in the record, such as arms.0.seconds, and the value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", "value"])
    writer.writerows(_leaves(record, ""))
    return out.getvalue()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, (list, tuple)):
        pairs = list(enumerate(value))
    else:
        yield path, "" if value is None else value
        return
    for key, each in pairs:
        yield from _leaves(each, f"{path}.{key}" if path else str(key))
