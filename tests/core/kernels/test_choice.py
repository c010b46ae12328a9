"""Which kernel runs where."""

import pytest
import torch

from rainfusion_core import kernels
from rainfusion_core.errors import KernelUnavailable, UnknownName
from rainfusion_core.kernels import (
    available_kernels,
    choose_kernel,
    reference,
    torch_blocks,
    unavailable_reason,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CALL = (torch.float32, 64)


@pytest.fixture(autouse=True)
def no_interpreter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "_triton_interprets", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch):
    """A function that sets the compute capability of a GPU which is not there."""

    def capability(*numbers: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: numbers)
        monkeypatch.setattr(torch.version, "hip", None)

    return capability


def test_auto_takes_torch_on_a_cpu():
    assert choose_kernel("auto", CPU, *CALL) == ("torch-blocks", torch_blocks.attention)


@pytest.mark.parametrize(("numbers", "name"), [((9, 0), "triton-blocks"), ((7, 5), "torch-blocks")])
def test_auto_takes_triton_on_a_gpu_that_can(gpu, numbers, name):
    gpu(*numbers)
    assert choose_kernel("auto", CUDA, *CALL)[0] == name


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
