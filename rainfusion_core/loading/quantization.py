"""Weights of the transformer in fewer bits, through the configurations of diffusers."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rainfusion_core.errors import ConfigError, KernelUnavailable

PACKAGES = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes", "gguf": "gguf"}


def check_name(quantize: str) -> None:
    kind, _, path = quantize.partition(":")
    if quantize != "none" and (kind not in PACKAGES or bool(path) != (kind == "gguf")):
        raise ConfigError(f"--quantize must be none, int8, fp8, nf4 or gguf:PATH, got {quantize!r}")


def check(quantize: str, transformer: str, device: str) -> None:
    """Refuse, before weights are read, what this machine lacks."""
    if quantize == "none":
        return
    kind, _, path = quantize.partition(":")
    package = PACKAGES[kind]
    if find_spec(package) is None:
        raise ConfigError(
            f"--quantize {kind} needs the package {package}",
            hint="pip install 'rainfusion[quantize]'",
        )
    if kind == "nf4" and not device.startswith("cuda"):
        raise KernelUnavailable(
            f"--quantize nf4 needs a CUDA device, this is {device}",
            hint="int8 and fp8 run everywhere",
        )
    if kind == "gguf":
        _check_file(path, transformer)


def _check_file(path: str, transformer: str) -> None:
    import diffusers

    file = Path(path).expanduser()
    if file.suffix != ".gguf" or not file.is_file():
        raise ConfigError(f"--quantize gguf:{path}: there is no such .gguf file")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ConfigError(f"--quantize gguf:{path}: the file is not in the GGUF format")
    if not hasattr(getattr(diffusers, transformer, None), "from_single_file"):
        raise ConfigError(f"--quantize gguf: diffusers reads no single file into a {transformer}")


def arguments(quantize: str, classes: Any, location: str, dtype: Any) -> Mapping[str, Any]:
    """What `from_pretrained` of the pipeline is given for it. A GGUF file is read here."""
    kind, _, path = quantize.partition(":")
    if kind == "none":
        return {}
    import diffusers

    if kind == "gguf":
        transformer = getattr(diffusers, classes.transformer).from_single_file(
            str(Path(path).expanduser()),
            quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
            config=location, subfolder="transformer", dtype=dtype,
        )  # fmt: skip
        return {"transformer": transformer}
    config = _bitsandbytes(dtype) if kind == "nf4" else _torchao(kind)
    names = [name for name in classes.components if name.startswith("transformer")]
    mapping = dict.fromkeys(names or ["transformer"], config)
    return {"quantization_config": diffusers.PipelineQuantizationConfig(quant_mapping=mapping)}


def _torchao(kind: str) -> Any:
    import diffusers
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    weights = Int8WeightOnlyConfig() if kind == "int8" else Float8WeightOnlyConfig()
    return diffusers.TorchAoConfig(weights)


def _bitsandbytes(dtype: Any) -> Any:
    import diffusers

    return diffusers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )
