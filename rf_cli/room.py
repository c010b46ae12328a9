"""Whether a render fits into memory, told before anything heavy loads."""

from typing import TYPE_CHECKING

from rf_cli.presets import Preset

if TYPE_CHECKING:
    from rainfusion_core.pipeline import ModelSource
    from rainfusion_core.render import Clip

COPIES = 2  # of the finished frames in float32: the decoder's and the caller's
BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5}  # a weight of the transformer


def check(preset: Preset, source: "ModelSource", clip: "Clip") -> None:
    """Refuse a render of which the transformer's weights or the frames alone cannot fit.

    Raises:
        ConfigError: they need more memory than is free.
    """
    import torch

    from rainfusion_core.memory import check_room, free_bytes

    device, host = torch.device(source.device), torch.device("cpu")
    frames = COPIES * clip.frames * clip.width * clip.height * 3 * 4
    weights = _weight_bytes(preset, source) if source.options.offload == "none" else 0
    needed = {f"the transformer of {preset.name}": weights} if weights else {}
    if device == host:
        needed |= {f"{clip.frames} frames of {clip.width}x{clip.height}": frames}
    check_room(needed, free=free_bytes(device), where=source.device)


def _weight_bytes(preset: Preset, source: "ModelSource") -> int:
    """Of all transformers; by the files where the model is a folder. 0 if nothing tells."""
    from rainfusion_core.pipeline import DTYPES

    options = source.options
    if options.quantize.startswith("gguf"):
        return 0
    if source.folder is not None:
        files = source.folder.glob("transformer*/*.safetensors")
        return sum(path.stat().st_size for path in files)
    each = BYTES.get(options.quantize, float(DTYPES[source.dtype].itemsize))
    count = preset.parameters * preset.transformer.count
    return int(count * (1.0 if options.fp8_storage else each))
