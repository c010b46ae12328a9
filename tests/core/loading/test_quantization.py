from importlib.util import find_spec

import pytest
import torch

from rainfusion_core import install, pipeline
from rainfusion_core.errors import ConfigError, KernelUnavailable
from rainfusion_core.loading import quantization
from rainfusion_core.loading.options import LoadOptions, prepare
from rainfusion_core.pipeline import ModelSource
from tests import image_pipelines, pipelines
from tests.core import loaded

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
needs_gguf = pytest.mark.skipif(find_spec("gguf") is None, reason="gguf is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # those packages warn of themselves


@needs_torchao
@pytest.mark.parametrize(
    ("family", "quantize", "tolerance"),
    [
        ("wan", "int8", 0.02),
        ("wan", "fp8", 0.1),
        ("cogvideox", "int8", 0.2),
        ("cogvideox", "fp8", 0.2),
    ],
)
def test_quantised_weights_stay_near_and_all_calls_are_sparse(family, quantize, tolerance):
    made = pipeline.load(loaded.source(family, quantize=quantize))
    layer = next(x for n, x in made.transformer.named_modules() if n.endswith("attn1.to_q"))
    assert type(layer.weight).__name__ in ("Int8Tensor", "Float8Tensor")
    outcome = loaded.rendered(made)
    assert 0 < loaded.distance(outcome, loaded.plain(family)) < tolerance
    assert len(outcome.report.sparse_rows) == len(loaded.plain(family).report.rows)


def wide_wan():
    """For bitsandbytes' kernel on the CPU: rows of 64 weights, a multiple of 32 of them."""
    made = pipelines.wan()
    torch.manual_seed(0)
    made.register_modules(
        transformer=pipelines.wan_transformer(num_attention_heads=4, text_dim=64, freq_dim=64),
        text_encoder=pipelines.text_encoder(d_model=64),
    )
    return made


def wide_cogvideox():
    channels = dict(in_channels=8, out_channels=8)  # more than the decoder's, which is not asked
    made = pipelines.cogvideox(
        num_attention_heads=4, text_embed_dim=64, time_embed_dim=64, **channels
    )
    made.register_modules(text_encoder=type(made.text_encoder)(_wider(made.text_encoder.config)))
    return made


def _wider(config):
    return type(config)(**{**config.to_dict(), "d_model": 64})


@needs_bitsandbytes
@pytest.mark.parametrize("make", [wide_wan, wide_cogvideox])
def test_nf4_weights_take_4_bits_and_all_calls_are_sparse(make, tmp_path, monkeypatch):
    """bitsandbytes computes on the CPU too, but diffusers refuses to quantise where no GPU is.

    That refusal is lifted here and nothing else; our own, which is made before `load`, stays.
    """
    from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB4BitDiffusersQuantizer

    if not torch.cuda.is_available():
        cpu = {"": "cpu"}
        monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", lambda *a, **k: None)
        monkeypatch.setattr(
            BnB4BitDiffusersQuantizer, "update_device_map", lambda self, d: d or cpu
        )
    plain = make()
    plain.save_pretrained(tmp_path)
    source = ModelSource(location=str(tmp_path), options=LoadOptions(quantize="nf4"))
    given = quantization.arguments("nf4", pipeline.classes_of(source), str(tmp_path), torch.float32)
    made = type(plain).from_pretrained(str(tmp_path), dtype=torch.float32, **given)
    made.set_progress_bar_config(disable=True)
    prepare(made, source.options, "cpu")
    layer = next(x for n, x in made.transformer.named_modules() if n.endswith("attn1.to_q"))
    assert layer.weight.quant_type == "nf4" and layer.weight.dtype == torch.uint8
    assert layer.weight.numel() == layer.in_features * layer.out_features // 2
    outcome, exact = loaded.rendered(made), loaded.rendered(plain)
    assert 0 < loaded.distance(outcome, exact) < 0.5
    assert len(outcome.report.sparse_rows) == len(exact.report.rows) > 0


@needs_gguf
def test_a_gguf_file_replaces_the_transformers_weights(tmp_path):
    file = _gguf(tmp_path / "wan.gguf", pipeline.load(loaded.source("wan")).transformer)
    made = pipeline.load(loaded.source("wan", quantize=f"gguf:{file}"))
    assert made.transformer.blocks[0].attn1.to_q.weight.dtype == torch.uint8
    outcome = loaded.rendered(made)
    assert 0 < loaded.distance(outcome, loaded.plain("wan")) < 0.02
    assert len(outcome.report.sparse_rows) == len(loaded.plain("wan").report.rows)


@needs_gguf
def test_a_gguf_file_replaces_the_weights_of_a_joint_attention_model(tmp_path):
    """FLUX.1: diffusers reads no single file into a CogVideoX."""
    # projections of 64 channels in, because Q8_0 packs 32 to a block
    plain = image_pipelines.flux(num_attention_heads=4)
    plain.save_pretrained(tmp_path)
    file = _gguf(tmp_path / "flux.gguf", plain.transformer)
    source = ModelSource(location=str(tmp_path), options=LoadOptions(quantize=f"gguf:{file}"))
    made = pipeline.load(source)
    assert made.transformer.transformer_blocks[0].attn.to_q.weight.dtype == torch.uint8
    (latents, report), (exact, calls) = _image(made), _image(plain)
    assert 0 < (latents - exact).abs().max() / exact.abs().max() < 0.02
    assert len(report.sparse_rows) == len(calls.rows) == 2 * 4


def _image(made):
    with install(made, loaded.SPARSE) as handle:
        settings = dict(prompt="a red circle", height=60, width=76, max_sequence_length=11)
        return image_pipelines.run(made, **settings), handle.report()


def _gguf(path, transformer):
    import gguf

    q8 = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(str(path), "wan")
    for name, value in transformer.state_dict().items():
        array = value.float().numpy()
        if name.endswith("weight") and array.ndim == 2 and array.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(array, q8), raw_dtype=q8)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("text", ["int4", "gguf", "int8:a", "gguf:"])
def test_other_names_are_refused(text):
    with pytest.raises(ConfigError, match="--quantize must be none, int8, fp8, nf4 or gguf:PATH"):
        quantization.check_name(text)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--quantize int8 needs the package torchao") as caught:
        quantization.check("int8", "WanTransformer3DModel", "cpu")
    assert caught.value.hint == "pip install 'rainfusion[quantize]'"


def test_what_this_machine_or_the_file_lacks_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(quantization, "find_spec", lambda name: True)
    with pytest.raises(KernelUnavailable, match="--quantize nf4 needs a CUDA device"):
        quantization.check("nf4", "WanTransformer3DModel", "cpu")
    with pytest.raises(ConfigError, match=r"there is no such \.gguf file"):
        quantization.check("gguf:none.gguf", "WanTransformer3DModel", "cpu")
    (tmp_path / "a.gguf").write_text("text")
    with pytest.raises(ConfigError, match="not in the GGUF format"):
        quantization.check(f"gguf:{tmp_path / 'a.gguf'}", "WanTransformer3DModel", "cpu")
