"""Puts the attention core into a diffusers pipeline or transformer, checks that it is there, and takes it out."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rainfusion_core.absence import reason_of
from rainfusion_core.adapters import ADAPTERS, ModelAdapter
from rainfusion_core.config import SparseConfig
from rainfusion_core.errors import ConfigError, RainfusionError, UnknownName
from rainfusion_core.interception import intercepted, is_intercepted, register
from rainfusion_core.kernels import KERNELS
from rainfusion_core.kernels.dense import DENSE_KERNELS
from rainfusion_core.order import order_path
from rainfusion_core.progress import LoopPosition
from rainfusion_core.report import SparsityReport
from rainfusion_core.schedule import plan
from rainfusion_core.selectors import SELECTORS
from rainfusion_core.selectors.base import OWN
from rainfusion_core.session import Layer, Session


class Handle:
    """What `install` returns: all state of the installation. Also a context manager that takes it out."""

    def __init__(self, config: SparseConfig) -> None:
        self.session = Session(config)
        self._number = register(self.session)
        self._sites: list[tuple[str, nn.Module]] = []
        self._undo: list[Callable[[], object]] = []

    @property
    def config(self) -> SparseConfig:
        return self.session.config

    @property
    def installed(self) -> bool:
        return bool(self._undo)

    def report(self) -> SparsityReport:
        """What all attention calls since the last `clear` add up to. Waits for the device."""
        return self.session.report()

    def clear(self) -> None:
        self.session.clear()

    def verify(self) -> None:
        """Check that every layer still goes through the core.

        Raises:
            RainfusionError: something replaced attention processors after `install`.
        """
        lost = [n for n, site in self._sites if not is_intercepted(site.processor, self._number)]
        if lost:
            raise RainfusionError(
                f"the attention processors of {len(lost)} layers were replaced after install, "
                f"{lost[0]} among them",
                hint="fuse projections, load adapters and set processors first, then install",
            )

    def uninstall(self) -> None:
        """Put everything back; the model's output is bit-equal to before. Twice is harmless."""
        while self._undo:
            self._undo.pop()()
        self._sites.clear()

    def __enter__(self) -> "Handle":
        return self

    def __exit__(self, *exception: object) -> None:
        self.uninstall()


def install(target: Any, config: SparseConfig | None = None) -> Handle:
    """Let the self-attention of a diffusers pipeline or transformer run through the core.

    Args:
        target: a pipeline (all its transformers are served) or one transformer.
        config: settings; None means the defaults.

    Raises:
        UnknownName: no adapter for the transformer's class, or an unknown method, order or kernel.
        ConfigError: the core is installed already, or a dense layer does not exist.
    """
    config = config or SparseConfig()
    check_names(config)
    pipeline, transformers = _transformers(target)
    for _, transformer in transformers:
        adapter = ADAPTERS[type(transformer).__name__]
        sites = _sites(transformer, adapter)
        plan(config, steps=1, layers=len(sites))  # refuses a layer that does not exist
        if any(hasattr(site.processor, "rainfusion_layer") for _, site in sites):
            raise ConfigError(
                "the core is installed in this model already",
                hint="call uninstall() on the first handle, or use it as a context manager",
            )
    handle = Handle(config)
    for name, transformer in transformers:
        _serve(handle, name, transformer, pipeline)
    return handle


def check_names(config: SparseConfig) -> None:
    """Refuse a method, order, kernel or method option that does not exist; needs no model."""
    tables: Mapping[str, tuple[Any, str]] = {
        "method": (SELECTORS, config.method),
        "kernel": ({"auto": None, **dict.fromkeys(KERNELS)}, config.kernel),
        "dense kernel": ({"auto": None, **dict.fromkeys(DENSE_KERNELS)}, config.dense_kernel),
    }
    for kind, (table, name) in tables.items():
        if name not in list(table):
            raise UnknownName(kind, name, table)
    if config.order not in ("auto", OWN):
        order_path(config.order)
    SELECTORS[config.method].complete(config)


def _transformers(target: Any) -> tuple[Any, list[tuple[str, nn.Module]]]:
    """(pipeline or None, its transformers by name). What torch.compile returned is looked into."""
    if isinstance(target, nn.Module):
        return None, [("transformer", getattr(target, "_orig_mod", target))]
    components = getattr(target, "components", {})
    found = [
        (name, getattr(component, "_orig_mod", component))
        for name, component in components.items()
        if name.startswith("transformer") and component is not None
    ]
    if not found:
        raise ConfigError(
            f"{type(target).__name__} holds no transformer",
            hint="pass a diffusers pipeline with a `transformer`, or the transformer itself",
        )
    return target, sorted(found)


def _sites(transformer: nn.Module, adapter: ModelAdapter) -> list[tuple[str, nn.Module]]:
    """Self-attention modules by name, in the order of execution."""
    return [
        (name, module)
        for name, module in transformer.named_modules()
        if adapter.self_attention.fullmatch(name) and hasattr(module, "processor")
    ]


def _serve(handle: Handle, name: str, transformer: nn.Module, pipeline: Any) -> None:
    adapter = ADAPTERS[type(transformer).__name__]
    session, sites = handle.session, _sites(transformer, adapter)
    first = len(session.layers)
    for index, (path, site) in enumerate(sites):
        session.layers.append(Layer(name, index, path))
        original = site.processor
        number = len(session.layers) - 1
        site.processor = intercepted(original, handle._number, number, adapter.functions)
        handle._undo.append(partial(setattr, site, "processor", original))
        handle._sites.append((f"{name}.{path}", site))
    position = LoopPosition(transformer, pipeline)
    handle._undo.append(position.remove)
    signature = inspect.signature(type(transformer).forward)

    # traced, it would be compiled again for every step
    @torch.compiler.disable
    def before_forward(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        arguments = signature.bind_partial(module, *args, **kwargs).arguments
        step, steps, branch = position.at(arguments)
        session.begin_forward(
            adapter,
            adapter.grids(module.config, arguments),
            step=step,
            steps=steps,
            branch=branch,
            layers=len(sites),
        )

    def absence(layer: int, on_purpose: bool | None) -> str:
        return reason_of(
            transformer, *sites[layer - first],
            session_number=handle._number, on_purpose=on_purpose,
        )  # fmt: skip

    @torch.compiler.disable
    def after_forward(module: nn.Module, args: tuple, output: Any) -> None:
        session.end_forward(range(first, first + len(sites)), absence)

    hook = transformer.register_forward_pre_hook(before_forward, with_kwargs=True)
    handle._undo.append(hook.remove)
    handle._undo.append(transformer.register_forward_hook(after_forward).remove)
