"""Schedulers by short names, and which of them solve which model's equation."""

import inspect
from typing import Any

from rainfusion_core.errors import ConfigError, UnknownName

# name -> class of diffusers, what the model must be, and what its configuration is given
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SCHEDULERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unipc": ("UniPCMultistepScheduler", "flow", FLOW),
    "dpm++": ("DPMSolverMultistepScheduler", "flow", FLOW),
    "euler": ("FlowMatchEulerDiscreteScheduler", "flow", {}),
    "cogvideox-ddim": ("CogVideoXDDIMScheduler", "cogvideox", {}),
    "cogvideox-dpm": ("CogVideoXDPMScheduler", "cogvideox", {}),
}


def check_name(name: str | None) -> None:
    if name is not None and name not in SCHEDULERS:
        raise UnknownName("scheduler", name, SCHEDULERS)


def check(name: str | None, classes: Any) -> None:
    """Refuse a scheduler for another kind of model, or one without arguments that the pipeline gives."""
    if name is None:
        return
    import diffusers

    class_name, kind, _ = SCHEDULERS[name]
    found = _kind(classes.scheduler, classes.scheduler_config)
    if found != kind:
        fitting = [each for each, (_, other, _) in SCHEDULERS.items() if other == found]
        raise ConfigError(
            f"--scheduler {name} does not fit {classes.pipeline}, whose scheduler is "
            f"{classes.scheduler or 'unknown'}",
            hint=f"{', '.join(fitting)} fit" if fitting else "leave --scheduler out",
        )
    call = inspect.signature(getattr(diffusers, classes.pipeline).__call__).parameters
    takes = inspect.signature(getattr(diffusers, class_name).set_timesteps).parameters
    if "sigmas" in call and "sigmas" not in takes:
        raise ConfigError(
            f"--scheduler {name} cannot be given the noise levels that {classes.pipeline} sets",
            hint="unipc and euler can",
        )


def _kind(class_name: str, config: dict[str, Any]) -> str:
    if class_name.startswith("CogVideoX"):
        return "cogvideox"
    flows = class_name.startswith("FlowMatch") or config.get("use_flow_sigmas", False)
    return "flow" if flows else "other"


def set_shift(pipeline: Any, shift: float) -> None:
    """Set the shift of the flow, which some schedulers call `flow_shift` and others `shift`."""
    scheduler = pipeline.scheduler
    pipeline.scheduler = _built(type(scheduler), scheduler.config, _both_names(shift))


def replace(pipeline: Any, name: str | None) -> None:
    """Give the pipeline another scheduler with the settings, the shift among them, of its own."""
    if name is None:
        return
    import diffusers

    class_name, _, settings = SCHEDULERS[name]
    config = pipeline.scheduler.config
    shift = config.get("flow_shift", config.get("shift"))
    wanted = {**settings, **({} if shift is None else _both_names(shift))}
    pipeline.scheduler = _built(getattr(diffusers, class_name), config, wanted)


def _both_names(shift: float) -> dict[str, float]:
    return {"flow_shift": shift, "shift": shift}


def _built(scheduler: Any, config: Any, wanted: dict[str, Any]) -> Any:
    taken = inspect.signature(scheduler.__init__).parameters
    return scheduler.from_config(config, **{k: v for k, v in wanted.items() if k in taken})
