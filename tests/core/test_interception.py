import inspect

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch.nn.functional import scaled_dot_product_attention

from rainfusion_core import interception
from rainfusion_core.interception import intercepted, is_intercepted, register


class Recorder:
    """A session that computes dense attention and remembers who asked."""

    def __init__(self):
        self.calls, self.dense = [], []

    def attend(self, layer, q, k, v, mask, scale):
        self.calls.append((layer, tuple(q.shape), scale))
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    def left_dense(self, layer, q, reason):
        self.dense.append((layer, reason))


class SdpaProcessor:
    """Like the processors of CogVideoX and Mochi, which call torch themselves."""

    def __call__(self, attn, x, *, causal=False):
        # the name F is what diffusers' files call torch.nn.functional
        return F.scaled_dot_product_attention(x, x, x, is_causal=causal)


F = torch.nn.functional


def recorded(processor, layer=5):
    recorder = Recorder()
    return recorder, intercepted(processor, register(recorder), layer)


def test_a_processor_that_calls_torch_itself_is_caught():
    recorder, processor = recorded(SdpaProcessor())
    x = torch.randn(1, 2, 6, 4)
    torch.testing.assert_close(processor(None, x), scaled_dot_product_attention(x, x, x))
    assert recorder.calls == [(5, (1, 2, 6, 4), 0.5)]


def test_causal_attention_stays_with_torch_and_is_reported():
    recorder, processor = recorded(SdpaProcessor())
    x = torch.randn(1, 2, 6, 4)
    dense = scaled_dot_product_attention(x, x, x, is_causal=True)
    assert torch.equal(processor(None, x, causal=True), dense)
    assert recorder.calls == [] and recorder.dense == [(5, "causal")]


def test_the_original_is_untouched_and_the_module_too():
    original = SdpaProcessor()
    _, twin = recorded(original)
    assert type(original) is SdpaProcessor and isinstance(twin, SdpaProcessor)
    assert F is torch.nn.functional


def test_the_signature_stays_because_diffusers_reads_it():
    _, twin = recorded(WanAttnProcessor())
    assert inspect.signature(type(twin).__call__) == inspect.signature(WanAttnProcessor.__call__)


def test_layers_of_one_class_share_one_subclass():
    assert type(recorded(SdpaProcessor())[1]) is type(recorded(SdpaProcessor())[1])


def test_a_processor_knows_its_session():
    recorder = Recorder()
    number = register(recorder)
    twin = intercepted(SdpaProcessor(), number, 0)
    assert is_intercepted(twin, number) and not is_intercepted(twin, number + 1)
    assert not is_intercepted(SdpaProcessor(), number)


def test_an_error_inside_leaves_no_processor_running():
    _, twin = recorded(SdpaProcessor())
    try:
        twin(None, "no tensor")
    except AttributeError:
        assert interception._running == []
    else:
        raise AssertionError("a string has no attention")


def test_the_op_obeys_the_rules_of_torch():
    recorder = Recorder()
    x = torch.randn(1, 2, 6, 4)
    layer = torch.tensor([register(recorder), 0])
    arguments = (x, x.clone(), x.clone(), layer, None, 0.5)
    rules = ("test_schema", "test_faketensor")
    found = torch.library.opcheck(
        torch.ops.rainfusion.self_attention.default, arguments, test_utils=rules
    )
    assert found == dict.fromkeys(rules, "SUCCESS")


@pytest.mark.parametrize("lying", ["heads-outside", "heads-inside", "part-of-a-larger-tensor"])
def test_the_output_lies_in_memory_as_the_queries_do(lying):
    x = torch.randn(2, 3, 7, 8)
    if lying != "heads-outside":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    if lying == "part-of-a-larger-tensor":
        x = torch.stack([x, x], dim=-2).unbind(-2)[0]
    _, processor = recorded(SdpaProcessor())
    out = processor(None, x)
    torch.testing.assert_close(out, scaled_dot_product_attention(x, x, x))
    assert out.stride() == torch.empty_like(x).stride()
