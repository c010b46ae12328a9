import pytest
import torch

from rainfusion_core.errors import UnknownName
from rainfusion_core.selection.pooling import block_means, ordered_block_means, representatives


def test_a_block_becomes_the_mean_of_its_tokens():
    x = torch.arange(8.0).view(1, 1, 4, 2)
    assert block_means(x, 2).tolist() == [[[[1, 2], [5, 6]]]]


def test_a_short_last_block_is_averaged_over_its_own_tokens():
    assert block_means(torch.ones(1, 1, 20, 4), 16).equal(torch.ones(1, 1, 2, 4))


def test_a_sequence_shorter_than_a_block_is_one_block():
    assert block_means(torch.ones(1, 1, 3, 4), 16).equal(torch.ones(1, 1, 1, 4))


@pytest.mark.parametrize("tokens", [64, 768, 800, 4000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_means_are_those_of_float64(tokens, dtype):
    x = torch.randn(2, 3, tokens, 8, dtype=dtype)
    wanted = [block.double().mean(dim=-2) for block in x.split(128, dim=-2)]
    means = block_means(x, 128)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means.double(), torch.stack(wanted, -2), atol=1e-6, rtol=1e-5)


def test_strides_do_not_matter():
    x = torch.randn(2, 40, 3, 8)
    assert block_means(x.transpose(1, 2), 16).equal(block_means(x.transpose(1, 2).contiguous(), 16))


@pytest.mark.parametrize("tokens", [32, 37])
def test_padding_is_left_out_of_every_mean(tokens):
    lengths = torch.tensor([*range(1, tokens + 1)], dtype=torch.int32)
    x = torch.randn(len(lengths), 2, tokens, 4)
    padded = x.clone()
    for item, length in zip(padded, lengths, strict=True):
        item[:, length:] = float("nan")
    means = block_means(padded, 8, lengths)
    for item, mean, length in zip(x, means, lengths.tolist(), strict=True):
        wanted = block_means(item[None, :, :length], 8)[0]
        torch.testing.assert_close(mean[:, : wanted.shape[-2]], wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("tokens", [16, 9, 75, 800])
def test_means_in_another_order_are_those_of_tokens_put_in_it(tokens, padded, dtype):
    x, places = torch.randn(2, tokens, 3, 8, dtype=dtype).transpose(1, 2), torch.randperm(tokens)
    lengths = torch.tensor([tokens // 3, tokens]) if padded else None
    expected = block_means(x[:, :, places], 16, lengths)
    if lengths is not None:
        x[0, :, places[lengths[0] :]] = float("nan")
        expected[0, :, -(-tokens // 3 // 16) :] = float("nan")  # whatever padding has
    means = ordered_block_means(x, places, 16, lengths)
    torch.testing.assert_close(means, expected, equal_nan=True)


@pytest.mark.parametrize("tokens", [64, 75])
def test_means_are_float32_on_other_devices_too(tokens):
    x = torch.empty(2, 3, tokens, 8, dtype=torch.bfloat16, device="meta")
    assert block_means(x, 16).dtype == torch.float32


@pytest.mark.parametrize("kind", ["max", "first", "last", "random"])
@pytest.mark.parametrize("padded", [False, True])
def test_other_representatives_against_a_plain_loop(kind, padded):
    x = torch.randn(2, 3, 23, 4)
    lengths = torch.tensor([23, 18]) if padded else None
    if padded:
        x[1, :, 18:] = 1e9
    found = representatives(x, 8, kind, lengths)
    assert found.dtype == torch.float32
    for b, h in ((0, 0), (1, 2)):
        real = x[b, h, : 23 if lengths is None else lengths[b]]
        for number, block in enumerate(real.split(8)):
            one = found[b, h, number]
            if kind == "random":
                assert (block == one).all(-1).any()
            else:
                wanted = {"max": block.amax(0), "first": block[0], "last": block[-1]}[kind]
                assert one.equal(wanted)


def test_a_random_token_differs_from_seed_to_seed_and_can_be_repeated():
    x = torch.randn(1, 1, 512, 4)
    first = representatives(x, 64, "random", seed=3)
    assert first.equal(representatives(x, 64, "random", seed=3))
    assert not first.equal(representatives(x, 64, "random", seed=4))


def test_an_unknown_representative_is_refused():
    with pytest.raises(UnknownName, match="no representative is called 'median'"):
        representatives(torch.zeros(1, 1, 4, 2), 2, "median")
