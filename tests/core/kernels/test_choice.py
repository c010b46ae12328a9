"""Which kernel runs where."""

import pytest
import torch

from rainfusion_core import kernels
from rainfusion_core.errors import KernelUnavailable, UnknownName
from rainfusion_core.kernels import (
    available_kernels,
    c_blocks,
    choose_kernel,
    flex,
    reference,
    torch_blocks,
    unavailable_reason,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CALL = (torch.float32, 64)


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "_triton_interprets", lambda: False)


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch):
    """A function that says what compiled kernels miss; without a call it is a compiler."""

    def missing(reason: str | None) -> None:
        monkeypatch.setattr(c_blocks, "unavailable", lambda dtype, head_dim: reason)
        monkeypatch.setattr(flex, "unavailable", lambda device: reason)

    missing("it needs a C compiler")
    return missing


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """A function that sets the compute capability of a GPU which is not there."""

    def capability(*numbers: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: numbers)
        monkeypatch.setattr(torch.version, "hip", None)

    return capability


def test_auto_takes_c_on_a_cpu(compiler):
    compiler(None)
    assert choose_kernel("auto", CPU, *CALL) == ("c-blocks", c_blocks.attention)


def test_auto_takes_torch_on_a_cpu_without_a_compiler():
    assert choose_kernel("auto", CPU, *CALL) == ("torch-blocks", torch_blocks.attention)


def test_the_c_kernel_is_refused_with_the_reason_it_gives():
    with pytest.raises(
        KernelUnavailable, match="kernel c-blocks cannot run: it needs a C compiler"
    ):
        choose_kernel("c-blocks", CPU, *CALL)
    assert unavailable_reason("c-blocks", CUDA, *CALL) == "it needs a CPU, the device is cuda"


@pytest.mark.parametrize(
    ("numbers", "dtype", "block_size", "name"),
    [
        ((9, 0), torch.bfloat16, 128, "gluon-sm90"),
        ((9, 0), torch.bfloat16, 64, "triton-blocks"),
        ((9, 0), torch.float32, 128, "triton-blocks"),
        ((8, 9), torch.bfloat16, 128, "triton-blocks"),
        ((10, 0), torch.bfloat16, 128, "triton-blocks"),
        ((7, 5), torch.bfloat16, 128, "torch-blocks"),
    ],
    ids=["hopper", "small-blocks", "float32", "ada", "blackwell", "turing"],
)
def test_auto_takes_the_fastest_that_runs_on_the_gpu(gpu, numbers, dtype, block_size, name):
    gpu(*numbers)
    assert choose_kernel("auto", CUDA, dtype, 128, block_size)[0] == name


def test_a_kernel_can_be_asked_for_by_name():
    assert choose_kernel("reference", CPU, *CALL) == ("reference", reference.attention)


def test_a_kernel_that_cannot_run_is_refused_with_the_reason():
    with pytest.raises(KernelUnavailable) as caught:
        choose_kernel("triton-blocks", CPU, *CALL)
    assert str(caught.value) == (
        "kernel triton-blocks cannot run: it needs a GPU, the device is cpu"
    )
    assert caught.value.hint == "these can: auto, reference, torch-blocks"


def test_an_unknown_kernel_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownName) as caught:
        choose_kernel("triton-block", CPU, *CALL)
    assert caught.value.hint == "did you mean 'triton-blocks'?"


def test_without_triton_there_is_no_triton_kernel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert unavailable_reason("triton-blocks", CUDA, *CALL) == "triton is not installed"
    assert available_kernels(CUDA, *CALL) == ["reference", "torch-blocks"]


@pytest.mark.parametrize(
    ("numbers", "dtype", "head_dim", "reason"),
    [
        ((7, 5), torch.float16, 64, "it needs compute capability 8.0 or higher"),
        ((8, 0), torch.float64, 64, "it does not compute in torch.float64"),
        ((8, 0), torch.float16, 512, "it needs a head_dim up to 256, got 512"),
        ((8, 0), torch.bfloat16, 128, None),
    ],
    ids=["old-gpu", "double", "wide-heads", "fits"],
)
def test_reasons_on_a_gpu(gpu, numbers, dtype, head_dim, reason):
    gpu(*numbers)
    assert unavailable_reason("triton-blocks", CUDA, dtype, head_dim) == reason


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ((CPU, torch.float16, 64, 128), "it needs an NVIDIA GPU, the device is cpu"),
        ((CUDA, torch.float32, 64, 128), "it does not compute in torch.float32"),
        ((CUDA, torch.float16, 80, 128), "it needs a head_dim of 64, 96 or 128, got 80"),
        ((CUDA, torch.float16, 64, 64), "it needs blocks of 128 tokens, got 64"),
        ((CUDA, torch.bfloat16, 96, 128), None),
    ],
    ids=["cpu", "float32", "odd-head-dim", "small-blocks", "fits"],
)
def test_reasons_of_the_kernel_for_hopper(gpu, call, reason):
    gpu(9, 0)
    assert unavailable_reason("gluon-sm90", *call) == reason


@pytest.mark.parametrize("numbers", [(8, 0), (9, 1), (10, 0), (12, 0)], ids=str)
def test_other_gpus_never_see_the_kernel_for_hopper(gpu, numbers):
    gpu(*numbers)
    reason = f"it needs compute capability 9.0, this GPU has {numbers[0]}.{numbers[1]}"
    assert unavailable_reason("gluon-sm90", CUDA, torch.float16, 128) == reason


def test_the_kernel_for_hopper_needs_a_triton_that_has_its_language(gpu, monkeypatch):
    gpu(9, 0)
    monkeypatch.setattr(kernels, "_triton_version", lambda: (3, 5))
    reason = unavailable_reason("gluon-sm90", CUDA, torch.float16, 128)
    assert reason == "it needs triton 3.6 or higher"
