"""The command as it was given, for a record."""

import shlex

import typer

UNSAID = {"overwrite", "resume", "json", "quiet"}  # not part of what a command renders


def command_line(context: typer.Context) -> str:
    """The words of a command, without what only decides about files and screens."""
    words = ["rf", context.info_name or "compare"]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in UNSAID or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        option = next((text for text in parameter.opts if text.startswith("--")), None)
        if isinstance(value, bool):
            words += [option or ""]
        elif isinstance(value, list):
            words += [word for each in value for word in (option or "", str(each))]
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [*([option] if option else []), *map(str, values)]
    return shlex.join(words)
