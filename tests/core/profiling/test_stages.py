import pytest
import torch

from rainfusion_core.errors import ConfigError
from rainfusion_core.profile import Architecture
from rainfusion_core.profiling.stages import check_memory, decode_seconds, encode_seconds
from tests import pipelines

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def test_a_prompt_is_encoded_with_two_layers_for_all():
    encoder = Architecture(
        class_name="UMT5EncoderModel",
        config=dict(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=4, num_heads=4),
    )
    assert 0 < encode_seconds(encoder, tokens=16, **CPU) < 60


def test_a_clip_is_decoded():
    config = {k: v for k, v in pipelines.wan().vae.config.items() if not k.startswith("_")}
    vae = Architecture(class_name="AutoencoderKLWan", config=config)
    assert 0 < decode_seconds(vae, (2, 4, 4), **CPU) < 60


def test_a_clip_that_is_too_large_to_decode_is_refused():
    settings = {"base_dim": 96, "scale_factor_spatial": 8, "patch_size": None}
    check_memory(settings, (5, 60, 104), 4, free=2**32)
    with pytest.raises(ConfigError, match=r"decoding needs about 3\.81 GiB, 1\.00 GiB are free"):
        check_memory(settings, (5, 60, 104), 4, free=2**30)
