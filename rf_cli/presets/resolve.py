"""From what `--model` names to a preset: a preset's name, a hub repository or a pipeline's folder."""

import json
from pathlib import Path

from rainfusion_core.errors import ModelUnavailable
from rf_cli.presets.files import all_presets, load
from rf_cli.presets.schema import Preset


def resolve(model: str) -> Preset:
    """The preset of whatever `--model` names."""
    folder = Path(model).expanduser()
    if not folder.is_dir() and "/" not in model and not model.startswith("."):
        return load(model)
    known = all_presets()
    for preset in known:
        if preset.model.location == model and not preset.loras:
            return preset
    if folder.is_dir():
        index = folder / "model_index.json"
    elif len(folder.parts) == 2 and not model.startswith((".", "/", "~")):
        index = hub_file(model, "model_index.json")
    else:
        raise ModelUnavailable(f"there is no folder {model}", hint="rf models lists the presets")
    return _like_its_family(model, index, known)


def hub_file(repository: str, name: str) -> Path:
    """A small file of a repository, from the hub's cache or the hub.

    Raises:
        ModelUnavailable: it is in neither.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, name))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{repository} is neither a folder, nor in the hub's cache, nor reachable",
            hint=f"fetch it with: hf download {repository}; --model shapes needs no download",
        ) from error


def _like_its_family(location: str, index: Path, known: list[Preset]) -> Preset:
    """Settings for a pipeline without a preset: those of the first preset of the same class.

    It may do what any of the family does: the class alone does not tell for what it was trained.
    """
    if not index.is_file():
        raise ModelUnavailable(
            f"{location} is not a diffusers pipeline: it has no model_index.json",
            hint="pass the folder that save_pretrained() of a pipeline wrote",
        )
    pipeline = json.loads(index.read_text("utf-8")).get("_class_name", "")
    family = [preset for preset in known if preset.pipeline == pipeline and not preset.loras]
    family.sort(key=lambda preset: preset.name == "shapes")
    if not family:
        classes = sorted({preset.pipeline for preset in known})
        raise ModelUnavailable(
            f"{location} holds a {pipeline}, rf knows {', '.join(classes)}",
        )
    model = family[0].model.model_copy(update={"location": location, "revision": None})
    tasks = {task: name for preset in reversed(family) for task, name in preset.tasks.items()}
    own = {task: tasks[task] for task in [*family[0].tasks, *sorted(tasks)]}
    update = {"name": location, "model": model, "tasks": own, "aliases": []}
    return family[0].model_copy(update=update)
