import pytest
import torch

from rainfusion_core.errors import ModelUnavailable, UnknownName
from rainfusion_core.loading.random_weights import (
    parameter_count,
    random_inputs,
    random_model,
    transformer_class,
)
from tests import pipelines

CONFIG = dict(pipelines.wan_transformer(layers=1).config)
CONFIG = {key: value for key, value in CONFIG.items() if not key.startswith("_")}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return random_model("WanTransformer3DModel", CONFIG, device=CPU, dtype=torch.bfloat16)


def test_parameters_have_the_dtype_and_the_islands_stay_float32(model):
    islands = set(model._keep_in_fp32_modules)
    for name, parameter in model.named_parameters():
        island = islands & set(name.split("."))
        assert parameter.dtype == (torch.float32 if island else torch.bfloat16), name
    assert model.blocks[0].scale_shift_table.dtype == torch.float32
    assert model.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_nothing_is_left_without_memory(model):
    assert {each.device.type for each in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_gains_are_one_biases_zero_and_matrices_random(model):
    attention = model.blocks[0].attn1
    assert attention.norm_q.weight.eq(1).all() and attention.to_q.bias.eq(0).all()
    assert attention.to_q.weight.float().std() == pytest.approx(0.02, rel=0.2)


def test_buffers_hold_what_the_class_computes(model):
    assert torch.equal(model.rope.freqs_cos, pipelines.wan_transformer(layers=1).rope.freqs_cos)


def test_the_same_seed_draws_the_same_weights(model):
    again = random_model("WanTransformer3DModel", CONFIG, device=CPU, dtype=torch.bfloat16)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_random_model_computes_finite_numbers(model):
    inputs = random_inputs(model, (2, 4, 6), 5)
    with torch.no_grad():
        out = model(**inputs).sample
    assert out.shape == inputs["hidden_states"].shape == (1, 16, 2, 4, 6)
    assert inputs["encoder_hidden_states"].shape == (1, 5, 32) and out.isfinite().all()


def test_parameters_are_counted_without_building(model):
    built = sum(parameter.numel() for parameter in model.parameters())
    assert parameter_count("WanTransformer3DModel", CONFIG) == built


def test_a_model_without_adapter_is_refused():
    with pytest.raises(UnknownName, match="no transformer class is called 'Linear'"):
        random_inputs(torch.nn.Linear(2, 2), (1, 2, 2), 5)


def test_a_class_that_diffusers_lacks_is_refused():
    with pytest.raises(ModelUnavailable, match="has no class Wan9Transformer"):
        transformer_class("Wan9Transformer")
