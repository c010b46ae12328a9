import pytest
import torch

from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.masks import key_lengths_of

GRID = LatentGrid(1, 2, 3)
TEXT_LAST = TokenLayout((GRID, Text(4)))
TEXT_FIRST = TokenLayout((Text(4), GRID))


def mask(*shown: str, layout: TokenLayout) -> torch.Tensor:
    """(batch, tokens) bool; one string of 0 and 1 a batch item for the text, video is shown."""
    text = torch.tensor([[int(x) for x in row] for row in shown], dtype=torch.bool)
    video = torch.ones(len(shown), GRID.tokens, dtype=torch.bool)
    return torch.cat([video, text] if layout is TEXT_LAST else [text, video], -1)


@pytest.mark.parametrize("layout", [TEXT_LAST, TEXT_FIRST], ids=["text-last", "text-first"])
@pytest.mark.parametrize("form", ["vector", "broadcast", "square", "additive"])
def test_padding_becomes_lengths_in_every_form(layout, form):
    given = mask("1100", "1111", layout=layout)
    forms = {
        "vector": given,
        "broadcast": given[:, None, None],
        "square": given[:, None, None].expand(-1, 1, 10, -1),
        "additive": torch.zeros(2, 1, 1, 10).masked_fill(~given[:, None, None], float("-inf")),
    }
    lengths, refusal = key_lengths_of(forms[form], layout, batch=2)
    assert refusal is None and lengths.tolist() == [8, 10]


def test_padding_queries_may_have_rows_of_their_own():
    square = mask("1100", layout=TEXT_LAST)[:, None, None].repeat(1, 1, 10, 1)
    square[:, :, 8:] = False  # rows of padding
    assert key_lengths_of(square, TEXT_LAST, batch=1)[0].tolist() == [8]


def test_one_mask_serves_a_whole_batch():
    assert key_lengths_of(mask("1000", layout=TEXT_LAST), TEXT_LAST, batch=3)[0].tolist() == [7] * 3


def test_no_mask_means_all_keys():
    assert key_lengths_of(None, TEXT_LAST, batch=1) == (None, None)


def _hidden_video():
    given = mask("1111", layout=TEXT_LAST)
    given[0, 2] = False
    return given


def _causal():
    return torch.ones(10, 10, dtype=torch.bool).tril()[None, None]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (_hidden_video(), "the mask hides video tokens"),
        (mask("0011", layout=TEXT_LAST), "the mask hides text before text that it shows"),
        (_causal(), "the mask differs between video tokens"),
        (torch.ones(1, 2, 10, 10, dtype=torch.bool), "the mask differs between heads"),
        (torch.ones(1, 7, dtype=torch.bool), "the mask has shape (1, 7)"),
    ],
    ids=["hidden-video", "holes", "causal", "per-head", "wrong-length"],
)
def test_other_masks_are_refused_by_reason(given, reason):
    assert key_lengths_of(given, TEXT_LAST, batch=1)[1] == reason
