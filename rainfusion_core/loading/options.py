"""What is done to a pipeline beside sparse attention: its weights made smaller, moved, replaced, compiled, cached.

One order holds, and `load` of pipeline.py keeps it: quantised weights are read, then the scheduler, LoRA, fp8 storage,
tiles of the decoder, compiled blocks, the cache's hooks, and last the place of the weights. The core itself goes in at
every render, after all of them.
"""

from dataclasses import dataclass, field
from typing import Any

from rainfusion_core.adapters import ADAPTERS
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.loading import caches, lora, quantization, schedulers

OFFLOADS = ("none", "model", "sequential", "group")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a pipeline is loaded.

    Attributes:
        offload: where weights wait for their turn: "none" keeps all on the device, "model" one
            component at a time, "group" one transformer block, "sequential" one layer.
        vae_tiling: decode in overlapping tiles.
        loras: laid over the transformer, in this order.
        quantize: "none", "int8", "fp8", "nf4" or "gguf:PATH", of the transformer's weights.
        fp8_storage: keep the transformer's weights in 8 bits and compute in the model's dtype.
        compile: compile the transformer's blocks with torch.compile.
        scheduler: name in `schedulers.SCHEDULERS`; None keeps the model's.
        cache: name in `caches.CACHES` or "none", with a strength after a colon where wanted.
    """

    offload: str = "none"
    vae_tiling: bool = False
    loras: tuple[lora.Lora, ...] = ()
    quantize: str = "none"
    fp8_storage: bool = False
    compile: bool = False
    scheduler: str | None = None
    cache: str = "none"

    def __post_init__(self) -> None:
        if self.offload not in OFFLOADS:
            raise UnknownName("offload", self.offload, OFFLOADS)
        quantization.check_name(self.quantize)
        caches.read_cache(self.cache)
        schedulers.check_name(self.scheduler)
        self._refuse_pairs()

    def _refuse_pairs(self) -> None:
        quantized = self.quantize != "none"
        pairs = (
            (quantized and self.fp8_storage, f"--quantize {self.quantize} and --fp8-storage",
             "both make the weights smaller; --quantize makes them smallest"),
            (self.compile and self.fp8_storage, "--compile and --fp8-storage",
             "torch.compile does not take weights that change their dtype; use --quantize fp8"),
            (self.compile and self.offload == "sequential", "--compile and --offload sequential",
             "weights move inside the compiled blocks; use --offload group or model"),
            (quantized and self.offload in ("sequential", "group"),
             f"--quantize {self.quantize} and --offload {self.offload}",
             "quantised weights move as a whole; use --offload model"),
        )  # fmt: skip
        for both, names, why in pairs:
            if both:
                raise ConfigError(f"{names} exclude each other", hint=why)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Names of the classes that a pipeline is made of, known before its weights are.

    Attributes:
        pipeline, transformer, vae: names in diffusers.
        scheduler: name in diffusers; "" if unknown.
        components: names of the components that hold weights.
    """

    pipeline: str
    transformer: str = ""
    vae: str = ""
    scheduler: str = ""
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    components: frozenset[str] = frozenset()


def check(options: LoadOptions, classes: Classes, device: str) -> None:
    """Refuse what this model or this machine cannot do. Reads no weights.

    Raises:
        ConfigError: the model cannot do it, or a package or file is missing.
    """
    if options.offload != "none" and device == "cpu":
        raise ConfigError(
            f"--offload {options.offload} needs a GPU: on cpu the weights are in main memory already",
            hint="leave --offload out",
        )
    quantization.check(options.quantize, classes.transformer, device)
    caches.check(options.cache, classes)
    schedulers.check(options.scheduler, classes)
    for each in options.loras:
        lora.check(each, classes)
    if options.vae_tiling and not _can_tile(classes.vae):
        raise ConfigError(
            f"--vae-tiling: {classes.vae} of {classes.pipeline} does not decode in tiles"
        )


def _can_tile(vae: str) -> bool:
    import diffusers

    found = getattr(diffusers, vae, None)
    # diffusers gives every decoder the method; those that can set the attribute when built
    return found is not None and "use_tiling" in found.__init__.__wrapped__.__code__.co_names


def prepare(pipeline: Any, options: LoadOptions, device: str) -> Any:
    """Do to a loaded pipeline what the options say, in the only order that works."""
    schedulers.replace(pipeline, options.scheduler)
    lora.apply(pipeline, options.loras, fuse=options.quantize == "none")
    transformers = _transformers(pipeline)
    for transformer in transformers:
        if options.fp8_storage:
            _store_in_fp8(transformer)
    if options.vae_tiling:
        pipeline.vae.enable_tiling()
    for transformer in transformers:
        if options.compile:
            compile_blocks(transformer)
    caches.apply(pipeline, transformers, options.cache)
    return place(pipeline, options.offload, device)


def _transformers(pipeline: Any) -> list[Any]:
    return [
        component
        for name, component in sorted(pipeline.components.items())
        if name.startswith("transformer") and component is not None
    ]


def _store_in_fp8(transformer: Any) -> None:
    import torch

    transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=transformer.dtype
    )


def compile_blocks(transformer: Any, **how: Any) -> None:
    """Let torch.compile compile every block that holds self-attention; all blocks share one graph.

    The method `forward` is compiled, not the module: hooks of caches and of group offloading then
    stay outside the graph, and a cache that tells dynamo to keep out cannot undo the compilation.
    """
    import torch

    pattern = ADAPTERS[type(transformer).__name__].self_attention
    names = [name for name, _ in transformer.named_modules() if pattern.fullmatch(name)]
    for name in dict.fromkeys(name.rpartition(".")[0] for name in names):
        block = transformer.get_submodule(name)
        block.forward = torch.compile(block.forward, fullgraph=True, **how)


def place(pipeline: Any, offload: str, device: str) -> Any:
    """Put the weights where they wait. The last thing done: its hooks run around all others."""
    import torch

    if offload == "none":
        return pipeline.to(device)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(
            onload_device=torch.device(device), offload_type="block_level",
            num_blocks_per_group=1, use_stream=device.startswith("cuda"),
        )  # fmt: skip
    return pipeline
