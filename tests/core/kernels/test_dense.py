import pytest
import torch

from rainfusion_core.errors import KernelUnavailable, UnknownName
from rainfusion_core.kernels import c_blocks, dense, reference
from rainfusion_core.kernels.dense import DENSE_KERNELS, available_dense, choose_dense
from tests import shapes
from tests.shapes import Shape

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPES = [
    pytest.param(Shape(1, 2, 2, 300, 64, 128), id="ragged"),
    pytest.param(Shape(2, 3, 3, 17, 24, 128), id="less-than-a-block"),
]
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, "DEVICE", "cpu")


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", available_dense(CPU, torch.float32))
@pytest.mark.parametrize("shape", SHAPES)
def test_every_dense_kernel_is_exact(shape: Shape, name: str, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    bound = TOLERANCES[dtype]
    expected = reference.attention(q, k, v, shape.kept(1.0), scale=0.3)
    ours = DENSE_KERNELS[name](q, k, v, scale=0.3)
    torch.testing.assert_close(ours, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize(
    ("dtype", "multiplies", "tiles", "no_c", "name"),
    [
        (torch.float32, True, (True, False), None, "blocks"),
        (torch.float32, True, (False, False), "there is no compiler", "sdpa"),
        (torch.bfloat16, True, (False, False), "there is no compiler", "blocks"),
        (torch.bfloat16, True, (True, True), None, "blocks"),
        (torch.bfloat16, True, (True, False), None, "sdpa"),
        (torch.bfloat16, False, (False, False), None, "sdpa"),
        (torch.float16, False, (False, False), None, "blocks"),
    ],
    ids=[
        "float32",
        "without-compiler",
        "bfloat16-native",
        "bfloat16-amx",
        "bfloat16-amx-of-torch-alone",
        "bfloat16-emulated",
        "float16",
    ],
)
def test_auto_takes_the_fastest_on_a_cpu(monkeypatch, dtype, multiplies, tiles, no_c, name):
    monkeypatch.setattr(dense, "unavailable_reason", lambda *call: no_c)
    monkeypatch.setattr(dense, "multiplies_bfloat16", lambda: multiplies)
    monkeypatch.setattr(dense, "multiplies_tiles", lambda: tiles[0])
    monkeypatch.setattr(c_blocks, "by_tiles", lambda *call: tiles[1])
    assert choose_dense("auto", *(torch.zeros(1, 1, 4, 8, dtype=dtype),) * 3) == name


def test_halves_have_more_kernels_on_a_gpu():
    assert available_dense(CUDA, torch.float32) == ["sdpa", "sdpa-efficient"]
    halves = ["sdpa", "sdpa-flash", "sdpa-cudnn", "sdpa-efficient"]
    assert available_dense(CUDA, torch.bfloat16) == halves


def test_a_dense_kernel_that_cannot_run_is_refused():
    with pytest.raises(KernelUnavailable) as caught:
        choose_dense("sdpa-cudnn", *(torch.zeros(1, 1, 4, 8),) * 3)
    assert str(caught.value) == "dense kernel sdpa-cudnn cannot run on cpu in torch.float32"
    assert caught.value.hint == "these can: auto, sdpa, blocks"


def test_an_unknown_dense_kernel_is_refused():
    with pytest.raises(UnknownName):
        choose_dense("sdpa-flsh", *(torch.zeros(1, 1, 4, 8),) * 3)
