"""Catches the attention call inside a diffusers processor, after normalisation and rotary embedding.

A processor is replaced by a copy of a subclass whose `__call__` is the original code object with two global names
swapped: `dispatch_attention_fn`, and `F` for processors that call `scaled_dot_product_attention` themselves. Nothing
process-wide is patched, the user's attention backend still serves what stays with diffusers, `inspect.signature` is
unchanged, and the caught call is one custom op, so `torch.compile` sees one node.

An op takes tensors and numbers only, so it finds its session through `_SESSIONS`: a weak table from the number that
the layer tensor carries to the session. The session itself belongs to the handle of `install`.
"""

import copy
import functools
import itertools
import types
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from rainfusion_core.masks import KeyMask


class Attend(Protocol):
    """Who computes the caught calls. `layer` counts all self-attention layers of the session."""

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor: ...

    def left_dense(self, layer: int, q: Tensor, reason: str) -> None: ...

    def made_no_call(self, layer: int, on_purpose: bool) -> None: ...


class _Run:
    """A processor that is running, and whether it has attended yet."""

    def __init__(self, layer: Tensor) -> None:
        self.layer, self.attended = layer, False


_SESSIONS: WeakValueDictionary[int, Attend] = WeakValueDictionary()
_numbers = itertools.count()
_running: list[_Run] = []  # innermost last
_Functions = frozenset[tuple[str, Callable[..., Any]]]
_subclasses: dict[tuple[type, _Functions], type] = {}


def register(session: Attend) -> int:
    """The number under which the ops of a session's layers find it, while it is alive."""
    number = next(_numbers)
    _SESSIONS[number] = session
    return number


def intercepted(
    processor: Any,
    session_number: int,
    layer: int,
    functions: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> Any:
    """A copy of a processor that hands its self-attention to the session.

    Args:
        functions: what the processor finds in torch.nn.functional instead, by name.
    """
    twin = copy.copy(processor)
    twin.__class__ = _subclass(type(processor), frozenset(functions.items()))
    # a tensor, not numbers: a compiled block is shared by all layers instead of compiled for each
    twin.rainfusion_layer = torch.tensor([session_number, layer])
    return twin


def is_intercepted(processor: Any, session_number: int) -> bool:
    layer = getattr(processor, "rainfusion_layer", None)
    return layer is not None and int(layer[0]) == session_number


# a captured graph would replay the kernels of its first run, and neither select nor count again
_UNSAFE = getattr(torch.Tag, "cudagraph_unsafe", None)  # older torch has no such tag
_OPTIONS: Any = {"tags": [_UNSAFE]} if _UNSAFE is not None else {}


@torch.library.custom_op("rainfusion::self_attention", mutates_args=(), **_OPTIONS)
def _op(
    q: Tensor, k: Tensor, v: Tensor, layer: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    session_number, index = layer.tolist()
    out = _SESSIONS[session_number].attend(index, q, k, v, mask, scale)
    # most kernels put it there themselves, and models then take it without another copy
    promised = torch.empty_like(q)
    return out if out.stride() == promised.stride() else promised.copy_(out)


@_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, layer: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    return torch.empty_like(q)


def _caught(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    _running[-1].attended = True
    return _op(q, k, v, _running[-1].layer, mask, scale)


def _foreign(q: Tensor, k: Tensor, **facts: bool) -> str | None:
    """Why a call cannot be handed to the session at all; (batch, heads, tokens, head_dim)."""
    for name, is_so in facts.items():
        if is_so:
            return name.replace("_", " ")
    if q.shape[-2] != k.shape[-2]:
        return "queries and keys differ in number"
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return "gradients are wanted"
    return None


# it changes nothing, but a compiler drops an op that neither returns nor changes anything
@torch.library.custom_op("rainfusion::left_dense", mutates_args=("layer",), **_OPTIONS)
def _count_dense(q: Tensor, layer: Tensor, reason: str) -> None:
    session_number, index = layer.tolist()
    _SESSIONS[session_number].left_dense(index, q, reason)


@_count_dense.register_fake
def _(q: Tensor, layer: Tensor, reason: str) -> None:
    return None


def _left_dense(q: Tensor, reason: str) -> None:
    _running[-1].attended = True
    _count_dense(q.detach(), _running[-1].layer, reason)


@torch.library.custom_op("rainfusion::made_no_call", mutates_args=("layer",), **_OPTIONS)
def _count_no_call(layer: Tensor, on_purpose: bool) -> None:
    session_number, index = layer.tolist()
    _SESSIONS[session_number].made_no_call(index, on_purpose)


@_count_no_call.register_fake
def _(layer: Tensor, on_purpose: bool) -> None:
    return None


def _is_perturbed(attention: Any) -> bool:
    """Whether a hook of diffusers has torch's attention return the values, as perturbed guidance does."""
    registry = getattr(attention, "_diffusers_hook", None)
    if registry is None or torch.compiler.is_compiling():
        return False
    return any(getattr(hook, "skip_attention_scores", False) for hook in registry.hooks.values())


def _told_not_to_attend(
    all_perturbed: Any = None, perturbation_mask: Tensor | None = None, **others: Any
) -> bool:
    """Whether guidance wants the values instead of attention, as LTX-2 tells its processors."""
    if all_perturbed is None:
        return perturbation_mask is not None and not perturbation_mask.any()
    return bool(all_perturbed)


def _dispatch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    attention_kwargs: dict[str, Any] | None = None,
    *,
    backend: Any = None,
    parallel_config: Any = None,
) -> Tensor:
    """Stands in for diffusers' `dispatch_attention_fn`; (batch, tokens, heads, head_dim)."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if isinstance(attn_mask, KeyMask):
        attn_mask = attn_mask.row
    reason = _foreign(
        q, k, causal=is_causal, grouped_heads=enable_gqa, dropout=dropout_p > 0,
        context_parallel=parallel_config is not None,
        sparse_already=attn_mask is not None and not isinstance(attn_mask, Tensor),
    )  # fmt: skip
    if reason is None:
        return _caught(q, k, v, attn_mask, scale).transpose(1, 2)
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    _left_dense(q, reason)
    return dispatch_attention_fn(
        query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, attention_kwargs,
        backend=backend, parallel_config=parallel_config,
    )  # fmt: skip


class _Functional:
    """Stands in for the module `torch.nn.functional`, with its own attention."""

    def __init__(self, functions: _Functions) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    @staticmethod
    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        reason = _foreign(
            query, key, causal=is_causal, grouped_heads=enable_gqa, dropout=dropout_p > 0
        )
        if reason is None:
            return _caught(query, key, value, attn_mask, scale)
        _left_dense(query, reason)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )


def _rebound(function: Any, functions: _Functions) -> types.FunctionType:
    """The same code, seeing our attention under the names that it calls."""
    names = {**function.__globals__, "F": _Functional(functions)}
    if "dispatch_attention_fn" in names:
        names["dispatch_attention_fn"] = _dispatch
    # without a name, so that dynamo does not resolve globals through the real module again
    del names["__name__"]
    for name in function.__code__.co_names:
        helper = function.__globals__.get(name)
        if _attends(helper) and helper.__globals__ is function.__globals__:
            names[name] = _seeing(helper, names)  # FLUX.2 has one for keys that it keeps
    return _seeing(function, names)


def _attends(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and (
        "dispatch_attention_fn" in value.__code__.co_names
    )


def _seeing(function: types.FunctionType, names: dict[str, Any]) -> types.FunctionType:
    """The same code with other globals."""
    twin = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _subclass(base: type, functions: _Functions) -> type:
    key = base, functions
    if key not in _subclasses:
        rebound = _rebound(base.__call__, functions)

        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
            if args and _is_perturbed(args[0]):
                _count_no_call(self.rainfusion_layer, True)
                return base.__call__(self, *args, **kwargs)
            run = _Run(self.rainfusion_layer)
            _running.append(run)
            try:
                out = rebound(self, *args, **kwargs)
            finally:
                _running.pop()
            if not run.attended:
                _count_no_call(run.layer, _told_not_to_attend(**kwargs))
            return out

        # Attention.forward drops every keyword that the processor's signature does not name
        functools.update_wrapper(__call__, base.__call__)
        _subclasses[key] = type(f"RainFusion{base.__name__}", (base,), {"__call__": __call__})
        _register_with_diffusers(base, _subclasses[key])
    return _subclasses[key]


def _register_with_diffusers(base: type, subclass: type) -> None:
    """Skip-layer guidance looks processors up by their exact class."""
    from diffusers.hooks._helpers import AttentionProcessorRegistry

    try:
        metadata = AttentionProcessorRegistry.get(base)
    except ValueError:  # not known to diffusers either
        return
    AttentionProcessorRegistry.register(subclass, metadata)
