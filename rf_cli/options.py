"""Options shared by commands, declared once so that they read the same everywhere, and how their texts are read."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from rainfusion_core.config import AUTO
from rainfusion_core.errors import ConfigError

Prompt = Annotated[str, typer.Argument(help="What the video shows.")]
PromptOrNone = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it shows.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Preset name, hub repository or local folder.")
]
Sparsity = Annotated[
    float | None,
    typer.Option("--sparsity", "-s", help="Fraction of key blocks to skip, in [0, 1); 0 is dense."),
]
Method = Annotated[str | None, typer.Option(help="How key blocks are chosen.")]
Mass = Annotated[
    float | None,
    typer.Option(help="Keep this share of the predicted softmax mass instead of a fixed share."),
]
MethodOption = Annotated[
    list[str] | None, typer.Option(help="A setting of the method, as in stride=8; repeatable.")
]
Order = Annotated[str | None, typer.Option(help="How tokens are grouped into blocks.")]
Sink = Annotated[
    str | None,
    typer.Option(
        help="Every query keeps the first frame: on, off, or auto, where it is a small share."
    ),
]
Size = Annotated[str | None, typer.Option(help="Width x height in pixels, as in 832x480.")]
Frames = Annotated[int | None, typer.Option(help="Frames of the video.")]
Fps = Annotated[int | None, typer.Option(help="Frames a second of the video.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale.")]
Negative = Annotated[str | None, typer.Option(help="What the video must not show.")]
Image = Annotated[
    list[Path] | None,
    typer.Option(help="Picture to start from, or to edit; may be repeated for edits."),
]
LastImage = Annotated[Path | None, typer.Option(help="Picture to end with.")]
Video = Annotated[Path | None, typer.Option(help="Video to start from.")]
Strength = Annotated[
    float | None, typer.Option(help="How much of --video is made anew, in (0, 1].")
]
Prompts = Annotated[Path | None, typer.Option(help="File with a prompt a line; # is a comment.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds of each prompt, as in 1,2,3.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep what is finished, do the rest.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise: the same seed gives the same video.")]
DenseSteps = Annotated[
    str | None,
    typer.Option(help="Leading steps left dense: 4, or 0.25 for a share; 4,2 also the last two."),
]
DenseLayers = Annotated[
    str | None,
    typer.Option(help="Layers left dense, as in 0,1,-1 or 0-3; -1 is the last; none: no layer."),
]
Correction = Annotated[
    str | None,
    typer.Option(help="pooled: skipped blocks still count, through their means; none drops them."),
]
Kernel = Annotated[
    str | None,
    typer.Option(
        help="Sparse kernel, used always; auto: the fastest, or dense where that is faster."
    ),
]
Dtype = Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Make attention that falls back to dense, or is not seen, an error."
    ),
]
_MEMORY, _SPEED = "Memory", "Speed beside sparse attention"
Offload = Annotated[
    str,
    typer.Option(
        help="Where weights wait for their turn: none, model, group or sequential.",
        rich_help_panel=_MEMORY,
    ),
]
VaeTiling = Annotated[
    bool, typer.Option("--vae-tiling", help="Decode in tiles.", rich_help_panel=_MEMORY)
]
Quantize = Annotated[
    str,
    typer.Option(
        help="The transformer's weights as int8, fp8, nf4 or gguf:PATH.", rich_help_panel=_MEMORY
    ),
]
Fp8Storage = Annotated[
    bool,
    typer.Option(
        "--fp8-storage", help="Keep weights in 8 bits, compute in the dtype.",
        rich_help_panel=_MEMORY,
    ),
]  # fmt: skip
Lora = Annotated[
    list[str] | None,
    typer.Option(help="LoRA weights as PATH[:SCALE], or transformer_2=PATH; may be repeated."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="unipc, dpm++, euler, cogvideox-ddim or cogvideox-dpm; else the model's."),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the blocks.", rich_help_panel=_SPEED)
]
Cache = Annotated[
    str,
    typer.Option(
        help="Reuse between steps: none, first-block, mag, taylor or pab; taylor:4 sets its strength.",
        rich_help_panel=_SPEED,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The MP4 or PNG; a .json record goes beside it. For many: a folder, or a name with "
        "{index}, {slug} and {seed}.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the record, and nothing else, on stdout.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also a row for every layer.")]


def at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise ConfigError(f"{option} must be at least 1, got {value}")
    return value


def read_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels."""
    match = re.fullmatch(r"(\d+)\s*[xX*×]\s*(\d+)", text.strip())
    if not match:
        raise ConfigError(
            f"--size must be WIDTHxHEIGHT in pixels, got {text!r}", hint="as in --size 832x480"
        )
    return int(match[1]), int(match[2])


def read_dense_steps(text: str) -> tuple[float, float]:
    """(leading, trailing) dense steps, each a number of steps or a share."""
    try:
        first, last = [*(float(part) for part in text.split(",")), 0.0][:2]
    except ValueError:
        raise ConfigError(
            f"--dense-steps must be a number or two numbers, got {text!r}",
            hint="4 for four steps, 0.25 for a quarter, 4,2 for the first four and the last two",
        ) from None
    if text.count(",") > 1:
        raise ConfigError(f"--dense-steps takes at most two numbers, got {text!r}")
    return first, last


TRUTH = {"true": True, "yes": True, "on": True, "1": True}
TRUTH |= {"false": False, "no": False, "off": False, "0": False}


def read_sink(text: str, option: str = "--sink") -> bool | str:
    """auto as it is, on and off as truth."""
    if text.lower() != AUTO and text.lower() not in TRUTH:
        raise ConfigError(f"{option} must be auto, on or off, got {text!r}")
    return TRUTH.get(text.lower(), AUTO)


def read_layers(text: str, option: str = "--dense-layers") -> tuple[int, ...]:
    """Layer numbers from a list such as 0,1,-1 or 0-3."""
    layers: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(-?\d+)(?:-(\d+))?", part)
        if not match:
            raise ConfigError(
                f"{option} must list layer numbers, got {part!r}",
                hint=f"as in {option} 0,1,5 or {option} 0-3",
            )
        first = int(match[1])
        layers += range(first, int(match[2]) + 1) if match[2] else [first]
    return tuple(layers)


def read_dense_layers(text: str) -> tuple[int, ...]:
    """As `read_layers`; none takes back what a preset leaves dense."""
    return () if text.strip().lower() == "none" else read_layers(text)


def read_method_options(texts: Iterable[str]) -> dict[str, bool | int | float | str]:
    """Options of a method from texts such as stride=8; the method checks names and types."""
    options = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ConfigError(
                f"--method-option must be name=value, got {text!r}",
                hint="as in --method xattention --method-option stride=8",
            )
        options[name] = read_value(value)
    return options


def read_value(text: str) -> bool | int | float | str:
    """true, false, a number, or else a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
