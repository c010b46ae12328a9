"""Fetches the weights of a preset from the hub: what it will take is known before the first byte."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rainfusion_core.errors import ModelUnavailable, OutputError
from rf_cli.presets import Preset

INDEX = "model_index.json"
# other frameworks' weights, and weights that need pickle
REFUSED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5", "*.onnx*", "*.gguf"]
VARIANT = re.compile(r"\.(bf16|fp16|fp8|fp32)[.-]")


@dataclass(frozen=True)
class Plan:
    """Files of one repository.

    Attributes:
        revision: commit that the files are of.
        size: bytes of all of them; `left` of them are not in the cache.
    """

    location: str
    revision: str
    files: tuple[str, ...]
    size: int
    left: int


def plans(preset: Preset, revision: str | None) -> list[Plan]:
    """What has to be fetched: the pipeline, and every LoRA of the preset.

    Raises:
        ModelUnavailable: the hub does not give it out, or is out of reach.
    """
    location, pinned = preset.model.location, revision or preset.model.revision
    with _clear(location, pinned):
        components = _components(location, pinned)
        patterns = [INDEX, *(f"{name}/*" for name in components)]
        found = _dry_run(location, pinned, patterns)
    chosen = [each for each in found if each.filename in _needed(found, preset.model.variant)]
    result = [_plan(location, chosen)]
    for lora in preset.loras:
        with _clear(lora.location, lora.revision):
            files = _dry_run(lora.location, lora.revision, [lora.file or "*.safetensors"])
        result.append(_plan(lora.location, files))
    return result


def check_space(preset: Preset, needed: int) -> None:
    """Refuse what does not fit beside what is in the cache."""
    free = shutil.disk_usage(_nearest(cache())).free
    if needed > free:
        raise OutputError(
            f"pulling {preset.name} needs {gib(needed)}, {cache()} has {gib(free)} free",
            hint=f"use another disk: HF_HOME=/another/disk rf models pull {preset.name}",
        )


def fetch(plan: Plan) -> None:
    """Download what is missing. An interrupted download goes on from where it stopped."""
    from huggingface_hub import snapshot_download

    # the index comes last: a pipeline counts as here once its index is
    others = [name for name in plan.files if name != INDEX]
    with _clear(plan.location, plan.revision):
        for names in (others, [INDEX] if INDEX in plan.files else []):
            if names:
                snapshot_download(plan.location, revision=plan.revision, allow_patterns=names)


def cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.2f} MiB"


def _components(location: str, revision: str | None) -> list[str]:
    """Folders of the pipeline, from its index; read without entering the cache."""
    from huggingface_hub import hf_hub_download

    with TemporaryDirectory() as folder:
        path = hf_hub_download(location, INDEX, revision=revision, local_dir=folder)
        index = json.loads(Path(path).read_text("utf-8"))
    return [name for name, value in index.items() if isinstance(value, list) and value[0]]


def _dry_run(location: str, revision: str | None, patterns: list[str]) -> Sequence:
    from huggingface_hub import snapshot_download

    found = snapshot_download(
        location, revision=revision, allow_patterns=patterns, ignore_patterns=REFUSED, dry_run=True
    )
    if not found:
        raise ModelUnavailable(f"{location} has no file {' or '.join(patterns)}")
    return found


def _needed(found: Sequence, variant: str | None) -> set[str]:
    """File names without those of another variant, where a folder has several."""
    names = [each.filename for each in found]
    chosen = set(names)
    for folder in {name.rpartition("/")[0] for name in names}:
        weights = [
            name
            for name in names
            if name.rpartition("/")[0] == folder and name.endswith(".safetensors")
        ]
        mine = [name for name in weights if _variant(name) == variant]
        if mine or any(_variant(name) is None for name in weights):
            plain = mine or [name for name in weights if _variant(name) is None]
            chosen -= set(weights) - set(plain)
    return chosen


def _variant(name: str) -> str | None:
    found = VARIANT.search(name.rpartition("/")[2])
    return found[1] if found else None


def _plan(location: str, found: Sequence) -> Plan:
    return Plan(
        location=location,
        revision=found[0].commit_hash,
        files=tuple(each.filename for each in found),
        size=sum(each.file_size or 0 for each in found),
        left=sum(each.file_size or 0 for each in found if each.will_download),
    )


def _nearest(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.is_dir())


@contextmanager
def _clear(location: str, revision: str | None) -> Iterator[None]:
    """One line for what huggingface_hub says in many."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it tells every try of a hub that is out of reach
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelUnavailable(
            f"{location} is given out only after its licence is accepted",
            hint=f"accept it at https://huggingface.co/{location}, then: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelUnavailable(f"{location} has no revision {revision}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelUnavailable(f"the hub has no repository {location}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ModelUnavailable(
            f"{location} is not a diffusers pipeline: it has no {INDEX}"
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if constants.HF_HUB_OFFLINE:
            raise ModelUnavailable("HF_HUB_OFFLINE is set, nothing can be pulled") from error
        raise ModelUnavailable(
            f"the hub is out of reach, {location} cannot be pulled",
            hint="try again: a download goes on from where it stopped",
        ) from error
    except errors.HfHubHTTPError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelUnavailable(f"{location} cannot be pulled: {reason}") from error
