"""What pydantic says about a preset, as one line: the key, its value, and what it may hold."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from rf_cli.presets.schema import Preset

KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "left out",
}


def problem(error: ValidationError) -> tuple[str, str | None]:
    """The first thing that is wrong, and a hint."""
    # an unknown key is named before the one that is missing for it
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    if "float" in first["loc"] and isinstance(first["input"], Mapping):  # a number or a table
        first = error.errors()[1]
    path = [part for part in first["loc"] if not _is_branch(part)]
    key = ".".join(map(str, path))
    if first["type"] == "extra_forbidden":
        return _unknown(path)
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}", None
    said = describe(_schema_at(path))
    if "[key]" in first["loc"]:
        said = describe(_names(_table_of(_schema_at(path[:-1]))))
    if first["type"] == "missing":
        return f"{key} is missing; it must be {said}", None
    return f"{key} must be {said}, got {first['input']!r}", None


def _unknown(path: Sequence[Any]) -> tuple[str, str | None]:
    known = sorted(set(_table_of(_schema_at(path[:-1])).get("properties", ())) - {"name"})
    where = f"[{'.'.join(map(str, path[:-1]))}]" if path[:-1] else "a preset"
    close = get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else None
    return f"{path[-1]} is not a key of {where}; its keys are {', '.join(known)}", hint


def describe(schema: Mapping[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    schema = _followed(schema)
    if "anyOf" in schema:
        kinds = [describe(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    text = KINDS[schema.get("type", "object")]
    if "minimum" in schema:
        text += f" of at least {schema['minimum']:g}"
    if "pattern" in schema:
        text += " of the form " + FORMS.get(schema["pattern"], schema["pattern"])
    if "prefixItems" in schema:
        text += f" of {len(schema['prefixItems'])}: {describe(schema['prefixItems'][0])} each"
    elif "items" in schema:
        text += f", each {describe(schema['items'])}"
    if names := _names(schema):
        text += f" whose keys are {describe(names).removeprefix('one of ')}"
    return text


def _names(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the keys of a table may be; empty where they are the table's own."""
    patterns = [{"type": "string", "pattern": each} for each in schema.get("patternProperties", ())]
    return schema.get("propertyNames", patterns[0] if patterns else {})


FORMS = {
    r"^[1-9]\d*x[1-9]\d*$": "WIDTHxHEIGHT",
    r"^(1|[1-9]\d*k(\+[1-9]\d*)?)$": "4k+1, 4k or 1",
}
_SCHEMA = Preset.model_json_schema()


def _followed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = _SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _schema_at(path: Sequence[Any]) -> Mapping[str, Any]:
    """The schema of a key; empty for what may be anything."""
    schema: Mapping[str, Any] = _SCHEMA
    for part in path:
        schema = _table_of(_followed(schema))
        if isinstance(part, int):
            schema = schema.get("prefixItems", [schema.get("items", {})])[0]
        else:
            inside = schema.get("additionalProperties")
            other = inside if isinstance(inside, Mapping) else {}
            schema = schema.get("properties", {}).get(part, other)
    return _followed(schema)


def _table_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of an optional table, the table."""
    tables = [each for each in schema.get("anyOf", ()) if "$ref" in each or _names(each)]
    return _followed(tables[0]) if tables else schema


def _is_branch(part: Any) -> bool:
    """Whether pydantic names here which of several types it tried."""
    return isinstance(part, str) and (part.startswith("dict[") or part in ("float", "[key]"))
