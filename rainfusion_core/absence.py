"""Why a layer made no attention call in a forward pass: it was left out, or attends where the core does not look."""

from torch import nn

from rainfusion_core.interception import is_intercepted

LEFT_OUT = "a cache or guidance left it out"
REPLACED = "its processor was replaced"
UNSEEN = "its processor attends where the core does not look"
PASSED_BY = "its block did not run"


def reason_of(
    transformer: nn.Module,
    path: str,
    site: nn.Module,
    *,
    session_number: int,
    on_purpose: bool | None,
) -> str:
    """Why the attention module `site`, which was installed in at `path`, made no call.

    Args:
        on_purpose: None if its processor did not run; else whether it was told not to attend.
    """
    if _module(transformer, path) is not site or not is_intercepted(site.processor, session_number):
        return REPLACED
    if on_purpose is None:
        return LEFT_OUT if _may_be_skipped(transformer, path) else PASSED_BY
    return LEFT_OUT if on_purpose else UNSEEN


def _module(transformer: nn.Module, path: str) -> nn.Module | None:
    try:
        return transformer.get_submodule(path)
    except AttributeError:  # the block that held it is gone, too
        return None


def _may_be_skipped(transformer: nn.Module, path: str) -> bool:
    """Whether diffusers may run something else instead of the module or of what it is part of.

    Hooks that only move or cast weights leave `forward` as it is; those of caches and of
    skip-layer guidance have one of their own.
    """
    parts = path.split(".")
    modules = (transformer.get_submodule(".".join(parts[:n])) for n in range(1, len(parts) + 1))
    registries = (getattr(module, "_diffusers_hook", None) for module in modules)
    return any(
        hasattr(hook, "new_forward")
        for registry in registries
        if registry is not None
        for hook in registry.hooks.values()
    )
