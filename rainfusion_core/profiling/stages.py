"""Times text encoding and decoding of one clip with random weights, on this device."""

import re
import time
from collections.abc import Mapping
from typing import Any

import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.loading.random_weights import draw_weights, random_model
from rainfusion_core.memory import MARGIN, free_bytes
from rainfusion_core.profile import Architecture
from rainfusion_core.profiling.parts import PartTimer
from rainfusion_core.timing import synchronize

ENCODER_LAYERS = re.compile(r"encoder\.block\.\d+\.layer")
SAMPLE_LAYERS = 2
# feature maps that the last, widest part of a decoder holds at once
DECODER_MAPS = 6


def encode_seconds(
    encoder: Architecture, *, tokens: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Seconds to encode one prompt; layers are alike, so two are run and theirs multiplied."""
    import transformers

    make = getattr(transformers, encoder.class_name)
    layers = int(encoder.config["num_layers"])
    run = min(layers, SAMPLE_LAYERS)
    config = make.config_class(**{**encoder.config, "num_layers": run})
    model = draw_weights(lambda: make(config), device=device, dtype=dtype)
    words = torch.randint(config.vocab_size, (1, tokens), device=device)
    timer = PartTimer(device)
    timer.watch(model, ENCODER_LAYERS)
    with torch.no_grad():
        for _ in range(2):  # the first one is not timed
            timer.take()
            model(words)
    synchronize(device)
    return sum(timer.take().scaled(layers / run).values())


def decode_seconds(
    vae: Architecture,
    latents: tuple[int, int, int],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """Seconds to decode the latents of one clip, after one untimed latent frame.

    Raises:
        ConfigError: the feature maps do not fit into the memory that is free.
    """
    check_memory(vae.settings(), latents, dtype.itemsize, free_bytes(device))
    model: Any = random_model(vae.class_name, vae.config, device=device, dtype=dtype)
    noise = torch.randn((1, model.config.z_dim, *latents), device=device).to(dtype)
    with torch.no_grad():
        model.decode(noise[:, :, :1])
        synchronize(device)
        begin = time.perf_counter()
        model.decode(noise)
        synchronize(device)
    return time.perf_counter() - begin


def check_memory(
    settings: Mapping[str, Any], latents: tuple[int, int, int], itemsize: int, free: int
) -> None:
    """Refuse what does not fit: some feature maps of four frames at the decoder's full size."""
    scale = int(settings["scale_factor_spatial"] or 8) // int(settings["patch_size"] or 1)
    pixels = latents[1] * latents[2] * scale**2
    needed = DECODER_MAPS * int(settings["base_dim"]) * 4 * pixels * itemsize / MARGIN
    if needed > free:
        raise ConfigError(
            f"decoding needs about {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free",
            hint="ask for a smaller --size",
        )
