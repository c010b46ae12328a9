"""`rf models`: the presets, and whether their weights are here."""

from typing import Annotated

import typer

from rainfusion_core.errors import UnknownName
from rf_cli import console, presets, tables

Action = Annotated[str | None, typer.Argument(help="show, to see one model; nothing for all.")]
Name = Annotated[str | None, typer.Argument(help="The model to show.")]


def models(action: Action = None, name: Name = None) -> None:
    """List the models that rf has presets for, or show one: rf models show wan2.1."""
    if action not in (None, "show"):
        raise UnknownName("action of rf models", action, ["show"])
    if action == "show" and name is not None:
        show(name)
        return
    console.out.print(tables.models((preset, _here(preset)) for preset in presets.all_presets()))
    console.note(
        "rf models show NAME has the defaults of one; rf generate --model takes any of them"
    )


def show(name: str) -> None:
    preset = presets.load(name)
    facts = {
        "name": ", ".join([preset.name, *preset.aliases]),
        "description": preset.description,
        "weights": preset.location,
        "weights here": "yes" if _here(preset) else f"no: hf download {preset.location}",
        "licence": preset.licence,
        "parameters": f"{preset.parameters:,} in the transformer".replace(",", " "),
        "weights in memory": f"{tables.weights_gib(preset):.2f} GiB (estimate, transformer alone)",
        "sizes": ", ".join(preset.video.sizes) + f"; any multiple of {preset.video.multiple}",
        "frames": f"{preset.video.frames}; {preset.video.frame_rule}, {preset.video.fps} a second",
        "tokens": f"{tables.tokens(preset)} at {preset.video.width}x{preset.video.height}",
        "steps, guidance": f"{preset.sampling.steps}, {preset.sampling.guidance:g}",
        "negative prompt": preset.sampling.negative or "none",
        "sparsity": f"{preset.sparse.sparsity:g}, dense steps {preset.sparse.dense_steps:g}",
    }
    for label, value in facts.items():
        console.out.print(f"[bold]{label:<18}[/] {value}", highlight=False, soft_wrap=True)


def _here(preset: presets.Preset) -> bool:
    from rainfusion_core.pipeline import ModelSource, is_available

    return is_available(ModelSource(location=preset.location, revision=preset.model.revision))
