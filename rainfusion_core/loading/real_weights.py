"""Loads a pipeline's transformer alone, and only as many of its layers as are wanted."""

import torch
from torch import nn

from rainfusion_core.errors import ModelUnavailable
from rainfusion_core.loading.quiet import quiet
from rainfusion_core.pipeline import ModelSource, is_available, transformer_of


def load_transformer(source: ModelSource, class_name: str, layers: int) -> nn.Module:
    """The first `layers` layers of the transformer, and what is outside of the layers.

    Raises:
        ModelUnavailable: the weights are not on this machine; nothing is downloaded.
    """
    if not is_available(source):
        raise ModelUnavailable(
            f"the weights of {source.location} are not on this machine",
            hint=f"fetch them with: {source.fetch}; --weights random needs none",
        )
    quiet()
    model = transformer_of(source, class_name, local_files_only=True, num_layers=layers)
    return model.to(torch.device(source.device)).eval()
