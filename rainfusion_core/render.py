"""Renders one clip through a pipeline that the core is installed in, and measures every stage of it."""

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError
from rainfusion_core.installation import install
from rainfusion_core.interference import Interference
from rainfusion_core.progress import SchedulerWatch
from rainfusion_core.recording import Recorder
from rainfusion_core.report import RenderReport, StageTimes
from rainfusion_core.timing import peak_memory_bytes, reset_peak_memory, synchronize

Progress = Callable[[str, int, int], None]  # (stage, finished steps, steps)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What is to be rendered; sizes in pixels, `frames` of the finished video, 1 for an image."""

    prompt: str
    negative: str = ""
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    seed: int
    extra: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the pipeline
    inputs: Mapping[str, Any] = field(default_factory=dict)  # pictures, by the pipeline's names
    given: Mapping[str, str] = field(default_factory=dict)  # what `inputs` are, in words

    def settings(self) -> dict[str, Any]:
        """Everything that decides about the frames, as plain values."""
        own = {key: value for key, value in vars(self).items() if key not in ("extra", "inputs")}
        return {**own, "given": dict(self.given), **self.extra}


@dataclass(frozen=True)
class Sound:
    """`samples`: (samples, channels) float32 in [-1, 1]; `rate`: samples a second."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Rendered:
    """`frames`: (frames, height, width, 3) float32 in [0, 1]; `latents`: what the decoder was given.

    `sound` is None where the model makes none.
    """

    frames: np.ndarray
    report: RenderReport
    latents: np.ndarray | None = None
    sound: Sound | None = None


@dataclass
class _Clock:
    """Seconds of each stage so far, and the first argument that it was last given."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)
    steps: list[float] = field(default_factory=list)

    def wrap(self, function: Callable, stage: str, announce: Callable[[], None]) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            announce()
            self.given[stage] = args[0] if args else None
            synchronize(self.device)
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize(self.device)
            spent = time.perf_counter() - begin
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            return result

        return timed


def render(
    pipeline: Any,
    clip: Clip,
    config: SparseConfig,
    *,
    progress: Progress | None = None,
    measure_speed: bool = True,
    recorder: Recorder | None = None,
) -> Rendered:
    """Render a clip. The core is installed for this render only.

    Args:
        progress: told about every stage and every finished step.
        measure_speed: also time one sparse call against the dense kernel, in the middle of the
            run; what that takes is left out of all times.
        recorder: keeps copies of attention calls; their time counts.
    """
    notify = progress or (lambda stage, step, steps: None)
    device = pipeline._execution_device
    clock = _Clock(device)
    reset_peak_memory(device)
    interference = Interference()
    with install(pipeline, config) as handle:
        handle.session.measures_speed = measure_speed and config.sparsity > 0
        handle.session.recorder = recorder
        handle.verify()
        begin = time.perf_counter()
        with _stages(pipeline, clock, handle.session, clip.steps, notify):
            frames, sound = _run(pipeline, clip)
        synchronize(device)
        total = time.perf_counter() - begin - handle.session.speed_seconds
        sparsity = handle.report()
    times = StageTimes(
        text_encoding=clock.seconds.get("text", 0.0),
        steps=tuple(clock.steps),
        attention=sparsity.attention_seconds,
        decoding=clock.seconds.get("decode", 0.0),
        total=total,
    )
    report = RenderReport(times, sparsity, peak_memory_bytes(device), interference.share())
    return Rendered(frames, report, _array(clock.given.get("decode")), sound)


def _array(latents: torch.Tensor | None) -> np.ndarray | None:
    return None if latents is None else latents.detach().float().cpu().numpy()


def _run(pipeline: Any, clip: Clip) -> tuple[np.ndarray, Sound | None]:
    """(frames, height, width, 3) float32, an image is one frame; and the sound beside them."""
    output = pipeline(**call_arguments(pipeline, clip), output_type="np")
    frames = output.frames[0] if hasattr(output, "frames") else output.images[:1]
    return np.asarray(frames, dtype=np.float32), _sound(pipeline, output)


def _sound(pipeline: Any, output: Any) -> Sound | None:
    """Of LTX-2: the output holds (batch, channels, samples), its vocoder knows how fast they are."""
    if (audio := getattr(output, "audio", None)) is None:
        return None
    samples = audio[0].detach().float().cpu().numpy().T
    return Sound(samples, int(pipeline.vocoder.config.output_sampling_rate))


def call_arguments(pipeline: Any, clip: Clip) -> dict[str, Any]:
    """What the clip says, in the words of the pipeline: each names its arguments a little differently.

    Image pipelines take no length. Where guidance is not distilled into the weights, those of
    Qwen-Image and FLUX.1 call its strength `true_cfg_scale`.

    Raises:
        ConfigError: the pipeline has no word for something that the clip asks for.
    """
    name, taken = type(pipeline).__name__, inspect.signature(type(pipeline).__call__).parameters
    arguments: dict[str, Any] = {
        "prompt": clip.prompt,
        "num_inference_steps": clip.steps,
        **_guidance(pipeline, taken, clip.guidance),
        # noise is drawn on the CPU, so that a seed means the same clip on every device
        "generator": torch.Generator("cpu").manual_seed(clip.seed),
    }
    if "negative_prompt" in taken:
        arguments["negative_prompt"] = clip.negative
    elif clip.negative:
        raise ConfigError(f"{name} takes no negative prompt", hint="leave --negative out")
    if "num_frames" in taken:
        arguments["num_frames"] = clip.frames
    elif clip.frames != 1 and "video" not in clip.inputs:
        raise ConfigError(f"{name} makes one image, not {clip.frames} frames")
    if "width" in taken:  # else the picture that is given decides
        arguments |= {"width": clip.width, "height": clip.height}
    if "max_area" in taken:  # FLUX.1 Kontext scales what is asked for to a megapixel otherwise
        arguments["max_area"] = clip.width * clip.height
    return arguments | dict(clip.extra) | dict(clip.inputs)


def _guidance(pipeline: Any, taken: Mapping[str, Any], scale: float) -> dict[str, float]:
    if "true_cfg_scale" not in taken and "guidance_scale" not in taken:
        pipeline.guider = pipeline.guider.new(guidance_scale=scale)
        return {}
    config = getattr(getattr(pipeline, "transformer", None), "config", {})
    real = "true_cfg_scale" in taken and not config.get("guidance_embeds", False)
    return {"true_cfg_scale" if real else "guidance_scale": scale}


@contextmanager
def _stages(
    pipeline: Any, clock: _Clock, session: Any, steps: int, notify: Progress
) -> Iterator[None]:
    """Time text encoding, every denoising step and decoding, by wrapping methods of the instances."""
    mark = [0.0, 0.0]  # when the last step ended, and the seconds of speed measurement until then

    def finished_step() -> None:
        synchronize(clock.device)
        now, aside = time.perf_counter(), session.speed_seconds
        clock.steps.append(now - mark[0] - (aside - mark[1]))
        mark[:] = now, aside
        notify("denoising", len(clock.steps), steps)

    def begin_steps() -> None:
        synchronize(clock.device)
        mark[:] = time.perf_counter(), session.speed_seconds
        notify("denoising", 0, steps)

    with ExitStack() as stack:
        for name, component in pipeline.components.items():
            if name.startswith("text_encoder") and component is not None:
                announce = partial(notify, "text encoding", 0, 1)
                stack.enter_context(_replaced(component, "forward", clock, "text", announce))
            elif name == "vae" and component is not None:
                announce = partial(notify, "decoding", 0, 1)
                stack.enter_context(_replaced(component, "decode", clock, "decode", announce))
        watch = SchedulerWatch(pipeline.scheduler, begin_steps, finished_step)
        stack.callback(watch.remove)
        yield


@contextmanager
def _replaced(
    owner: Any, name: str, clock: _Clock, stage: str, announce: Callable[[], None]
) -> Iterator[None]:
    """`owner.name` is timed inside the context; accelerate's hooks stay inside the timing."""
    before = owner.__dict__.get(name)
    owner.__dict__[name] = clock.wrap(getattr(owner, name), stage, announce)
    try:
        yield
    finally:
        if before is None:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = before
