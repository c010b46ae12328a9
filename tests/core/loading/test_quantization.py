from importlib.util import find_spec

import pytest
import torch

from rainfusion_core import install, pipeline
from rainfusion_core.errors import ConfigError, KernelUnavailable
from rainfusion_core.loading import quantization
from rainfusion_core.loading.options import LoadOptions
from rainfusion_core.pipeline import ModelSource
from tests import image_pipelines
from tests.core import loaded

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
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
