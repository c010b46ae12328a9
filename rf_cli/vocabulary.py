"""Prompts for a model that knows few words: what it can read of them, and what it can't is said."""

import re

from rainfusion_core.errors import ConfigError
from rf_cli import console
from rf_cli.presets import Preset


def readable(preset: Preset, prompt: str, option: str = "the prompt") -> str:
    """The prompt, or what `option` gives, in the model's own words; the others are named in a warning and left out.

    Raises:
        ConfigError: no word of it is known.
    """
    if not preset.words:
        return prompt
    said = re.findall(r"\w+", prompt.lower())
    known = [word for word in said if word in preset.words]
    if not known:
        raise ConfigError(
            f"{preset.name} knows no word of {option}, got {prompt!r}",
            hint=f"rf models show {preset.name} lists the {len(preset.words)} words that it knows",
        )
    if unknown := dict.fromkeys(word for word in said if word not in preset.words):
        console.warn(
            f"{preset.name} does not know {', '.join(map(repr, unknown))} and ignores "
            f"{'them' if len(unknown) > 1 else 'it'}: rf models show {preset.name} lists its words"
        )
    return " ".join(known)
