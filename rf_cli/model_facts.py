"""Everything that a preset says, as lines of (label, value, source)."""

from collections.abc import Iterator
from typing import Any

from rainfusion_core.config import SparseConfig
from rainfusion_core.layout import LatentGrid, TokenLayout
from rainfusion_core.sink import first_frame
from rf_cli import tables
from rf_cli.presets import Preset

Fact = tuple[str, str, str]


def facts(preset: Preset, fetch: str | None) -> Iterator[Fact]:
    """All facts; `fetch` is the command that gets the weights, None where they are here."""
    yield "name", ", ".join([preset.name, *preset.aliases]), ""
    yield "description", preset.description, ""
    if preset.words:
        yield "words", " ".join(preset.words), preset.source("words")
    yield "tasks", ", ".join(f"{k} ({v})" for k, v in preset.tasks.items()), preset.source("tasks")
    yield from _weights(preset, fetch)
    yield from _clip(preset)
    yield from _sampling(preset)
    yield from _sparse(preset)


def _weights(preset: Preset, fetch: str | None) -> Iterator[Fact]:
    model, table = preset.model, preset.transformer
    yield "licence", preset.licence, preset.source("licence")
    yield "weights", preset.location, preset.source("model.location")
    if model.revision:
        yield "revision", model.revision, preset.source("model.revision")
    yield "weights here", "yes" if fetch is None else f"no: {fetch}", ""
    if model.gated:
        yield "gated", f"accept the licence at https://huggingface.co/{model.location} first", ""
    if model.requires:
        yield "needs", "pip install " + " ".join(model.requires), preset.source("model.requires")
    for lora in preset.loras:
        place = "/".join(filter(None, [lora.location, lora.file]))
        yield "LoRA", f"{place}, scale {lora.scale:g}, {lora.component}", preset.source("loras")
    dtypes = [model.dtype, *(f"{name} {dtype}" for name, dtype in model.component_dtypes.items())]
    yield "dtype", ", ".join(dtypes), preset.source("model.dtype")
    many = f"{table.count} x " if table.count > 1 else ""
    count = f"{many}{preset.parameters:,} in the transformer".replace(",", " ")
    yield "parameters", count, preset.source("parameters")
    if preset.published:
        yield "published as", preset.published, preset.source("published")
    yield (
        "weights in memory",
        f"{tables.weights_gib(preset):.2f} GiB (estimate, transformer alone)",
        "",
    )
    if model.trained_grid:
        grid = "x".join(map(str, model.trained_grid))
        text = f"{grid} tokens; positions of larger grids are interpolated"
        yield "trained on", text, preset.source("model.trained_grid")
    if preset.memory:
        yield "memory", preset.memory, preset.source("memory")
    if model.vae_tiling:
        yield "decoding", "in tiles", preset.source("model.vae_tiling")
    yield "transformer", f"{table.class_name} {_flat(table.config)}", preset.source("transformer")


def _clip(preset: Preset) -> Iterator[Fact]:
    video = preset.video
    other = f"; any multiple of {video.multiple}" if video.any_size else "; no other"
    yield "size", f"{video.width}x{video.height}", preset.source("video.width")
    yield "sizes", ", ".join(video.sizes) + other, preset.source("video.sizes")
    if not video.is_picture:
        most = f", {video.max_frames} at most" if video.max_frames else ""
        text = f"{video.frames}; {video.frame_rule}{most}, {video.fps} a second"
        yield "frames", text, preset.source("video.frames")
    text = f"{tables.tokens(preset)} at {video.width}x{video.height}"
    yield "tokens", text, preset.source("video.token")


def _sampling(preset: Preset) -> Iterator[Fact]:
    sampling = preset.sampling
    yield "steps", f"{sampling.steps}", preset.source("sampling.steps")
    how = {"guidance_scale": "", "guider": ", of the guider"}
    argument = how.get(sampling.guidance_argument, f", as {sampling.guidance_argument}")
    text = f"{sampling.guidance:g}, {sampling.guidance_kind}{argument}"
    yield "guidance", text, preset.source("sampling.guidance")
    yield "negative prompt", sampling.negative or "none", preset.source("sampling.negative")
    if sampling.flow_shift is not None:
        shift = sampling.flow_shift
        text = _flat(shift) if isinstance(shift, dict) else f"{shift:g}"
        yield "flow shift", text, preset.source("sampling.flow_shift")
    if preset.scheduler:
        text = f"{preset.scheduler.class_name} {_flat(preset.scheduler.config)}"
        yield "scheduler", text, preset.source("scheduler")
    if preset.call:
        yield "further arguments", _flat(preset.call), preset.source("call")


def _sparse(preset: Preset) -> Iterator[Fact]:
    sparse = preset.sparse
    yield "sparsity", f"{sparse.sparsity:g}", preset.source("sparse.sparsity")
    last = f", last {sparse.dense_last_steps:g}" if sparse.dense_last_steps else ""
    layers = f", layers {list(sparse.dense_layers)}" if sparse.dense_layers else ""
    text = f"first {sparse.dense_steps:g}{last}{layers}"
    yield "first frame", ", ".join(tables.first_frame(_first_frame(preset))), "docs/evidence.md"
    yield "block size", f"{sparse.block_size} tokens", preset.source("sparse.block_size")
    yield "correction", sparse.correction, preset.source("sparse.correction")
    yield "dense steps", text, preset.source("sparse.dense_steps")


def _first_frame(preset: Preset) -> dict[str, Any]:
    """By the clip alone: text in the same attention makes its share a little smaller."""
    video = preset.video
    grid = LatentGrid(*video.grid(video.width, video.height, video.frames))
    config = SparseConfig(**preset.sparse.model_dump())
    return first_frame(TokenLayout((grid,)), config)._asdict()


def _flat(table: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in table.items())
