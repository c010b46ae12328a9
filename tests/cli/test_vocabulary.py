"""Prompts for a model that knows few words."""

import json

import pytest

from rainfusion_core.errors import ConfigError
from rf_cli import presets
from rf_cli.requests import clip_of
from rf_cli.vocabulary import readable

SHAPES, WAN = presets.load("shapes"), presets.load("wan2.1")


def test_a_model_without_a_word_list_is_given_the_prompt_as_it_is():
    assert readable(WAN, "A fox, quick & brown!") == "A fox, quick & brown!"


def test_case_and_punctuation_do_not_matter(capsys):
    said = readable(SHAPES, "A large RED circle, moving right over a blue background.")
    assert said == "a large red circle moving right over a blue background"
    assert not capsys.readouterr().err


def test_unknown_words_are_named_once_and_left_out(capsys):
    said = readable(SHAPES, "a crimson dragon circle over a crimson blue background")
    assert said == "a circle over a blue background"
    assert "shapes does not know 'crimson', 'dragon' and ignores them" in capsys.readouterr().err


def test_a_prompt_of_unknown_words_is_refused():
    with pytest.raises(
        ConfigError, match="shapes knows no word of the prompt, got 'quick fox'"
    ) as caught:
        readable(SHAPES, "quick fox")
    assert str(len(SHAPES.words)) in caught.value.hint
    with pytest.raises(ConfigError, match="no word of --negative, got 'blurry'"):
        clip_of(SHAPES, "a circle", size=None, seed=0, negative="blurry")


def test_the_word_list_of_shapes_is_that_of_its_tokenizer():
    path = presets.FOLDER / "shapes" / "weights" / "tokenizer" / "tokenizer.json"
    pieces = [piece for piece, _ in json.loads(path.read_text("utf-8"))["model"]["vocab"]]
    words = {piece[1:] for piece in pieces if piece.startswith("▁") and len(piece) > 1}
    assert set(SHAPES.words) == words and len(SHAPES.words) == len(words)
