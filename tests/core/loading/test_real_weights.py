import pytest
import torch

from rainfusion_core.errors import ModelUnavailable
from rainfusion_core.loading.real_weights import load_transformer
from rainfusion_core.pipeline import ModelSource
from tests import pipelines


def test_the_first_layers_of_a_saved_transformer_are_loaded(tmp_path):
    saved = pipelines.wan_transformer(layers=2)
    saved.save_pretrained(tmp_path / "transformer")
    source = ModelSource(location=str(tmp_path), dtype="bfloat16")
    model = load_transformer(source, "WanTransformer3DModel", 1)
    assert len(model.blocks) == 1
    weight = model.blocks[0].attn1.to_q.weight
    assert torch.equal(weight, saved.blocks[0].attn1.to_q.weight.bfloat16())
    assert model.blocks[0].scale_shift_table.dtype == torch.float32


def test_weights_that_are_not_here_are_not_fetched():
    source = ModelSource(location="nobody/nothing", fetch="hf download nobody/nothing")
    with pytest.raises(
        ModelUnavailable, match="the weights of nobody/nothing are not on"
    ) as caught:
        load_transformer(source, "WanTransformer3DModel", 1)
    assert caught.value.hint == (
        "fetch them with: hf download nobody/nothing; --weights random needs none"
    )
