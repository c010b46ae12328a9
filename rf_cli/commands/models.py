"""`rf models`: the presets, whether their weights are here, and how to get them."""

from pathlib import Path
from typing import Annotated

import typer

from rainfusion_core.errors import ConfigError, UnknownName
from rf_cli import console, model_facts, presets, tables

ACTIONS = ("show", "pull", "validate")

Action = Annotated[
    str | None,
    typer.Argument(help="show NAME, pull NAME or validate FILE; nothing lists all models."),
]
Name = Annotated[str | None, typer.Argument(help="A model, or the file of a preset.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit to pull instead of the one that the preset pins.")
]


def models(action: Action = None, name: Name = None, revision: Revision = None) -> None:
    """List the models that rf has presets for, show one, pull its weights, or check a preset file.

    rf models show wan2.1; rf models pull wan2.1; rf models validate mine.toml
    """
    if action not in (None, *ACTIONS):
        raise UnknownName("action of rf models", action, ACTIONS)
    if action != "pull" and revision is not None:
        raise ConfigError("--revision goes with rf models pull alone")
    if action is None or (action == "show" and name is None):
        _list()
    elif name is None:
        what = "a FILE" if action == "validate" else "the NAME of a model"
        raise ConfigError(f"rf models {action} needs {what}")
    elif action == "show":
        _show(name)
    elif action == "pull":
        _pull(name, revision)
    else:
        _validate(Path(name))


def _list() -> None:
    found = presets.scan()
    known = [each for each in found if isinstance(each, presets.Preset)]
    console.out.print(tables.models((preset, _here(preset)) for preset in known))
    for each in found:
        if isinstance(each, ConfigError):
            console.warn(f"left out, {each}")
    console.note(
        "rf models show NAME has the defaults of one and where they are from; rf generate --model "
        f"takes any of them; your own are read from {presets.user_folder()}"
    )
    console.note("Open-Sora Plan, of the first RainFusion paper, is not in diffusers")


def _show(name: str) -> None:
    preset = presets.load(name)
    fetch = None if _here(preset) else f"rf models pull {preset.name}"
    for label, value, source in model_facts.facts(preset, fetch):
        told = f"  [dim]({source})[/]" if source else ""
        console.out.print(f"[bold]{label:<19}[/] {value}{told}", highlight=False, soft_wrap=True)


def _pull(name: str, revision: str | None) -> None:
    from rf_cli import pulling

    preset = presets.load(name)
    if Path(preset.location).expanduser().is_dir():
        raise ConfigError(f"{preset.name} is a folder, {preset.location}: there is nothing to pull")
    plans = pulling.plans(preset, revision)
    left = sum(plan.left for plan in plans)
    for plan in plans:
        console.note(
            f"{plan.location} at {plan.revision}: {len(plan.files)} files, "
            f"{pulling.gib(plan.size)}, {pulling.gib(plan.left)} of them to fetch"
        )
    pulling.check_space(preset, left)
    for plan in plans:
        pulling.fetch(plan)
    console.out.print(f"{preset.name} is in {pulling.cache()}", highlight=False, soft_wrap=True)
    if revision is not None:
        console.note(
            f"rf renders with {preset.model.revision or 'main'} unless a preset of yours says "
            f'otherwise: base = "{preset.name}", [model], revision = "{plans[0].revision}"'
        )


def _validate(path: Path) -> None:
    from rainfusion_core.loading.random_weights import parameter_count, transformer_class

    preset = presets.read(path)
    for task, pipeline in preset.tasks.items():
        try:
            transformer_class(pipeline)
        except Exception as error:
            raise ConfigError(f"{path.name}: tasks.{task}: {error}") from error
    try:
        counted = parameter_count(preset.transformer.class_name, preset.transformer.config)
    except Exception as error:
        raise ConfigError(f"{path.name}: transformer cannot be built: {error}") from error
    if abs(counted / preset.parameters - 1) > 0.01:
        raise ConfigError(
            f"{path.name}: parameters is {preset.parameters:_}, the transformer has {counted:_}"
        )
    console.out.print(f"{path} is a valid preset", highlight=False, soft_wrap=True)
    if path.resolve().parent != presets.user_folder().resolve():
        console.note(f"rf finds it by name once it is in {presets.user_folder()}")


def _here(preset: presets.Preset) -> bool:
    from rainfusion_core.pipeline import ModelSource, is_available

    return is_available(ModelSource(location=preset.location, revision=preset.model.revision))
