"""Runs in Triton's interpreter without a GPU; its bfloat16 product is wrong there, so bfloat16 needs one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rainfusion_core.kernels import reference
from tests.shapes import DEVICE, FULL_SIZE, SHAPES, Shape

triton_blocks = pytest.importorskip("rainfusion_core.kernels.triton_blocks")
ROOT = Path(__file__).parents[3]
TOLERANCES = {torch.float32: 2e-5, torch.float16: 4e-3}
if DEVICE == "cuda":
    TOLERANCES[torch.bfloat16] = 2e-2


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("density", [0.2, 1.0], ids="density{}".format)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference(shape: Shape, density: float, dtype: torch.dtype):
    q, k, v = shape.qkv(dtype)
    kept, bound = shape.kept(density), TOLERANCES[dtype]
    expected = reference.attention(q, k, v, kept)
    torch.testing.assert_close(
        triton_blocks.attention(q, k, v, kept), expected, atol=bound, rtol=bound
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", FULL_SIZE)
def test_matches_reference_at_the_size_of_models(shape: Shape, dtype: torch.dtype):
    test_matches_reference(shape, 0.5, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_reference_with_padding(shape: Shape):
    q, k, v = shape.qkv()
    kept, lengths = shape.kept(0.5), shape.lengths()
    expected = reference.attention(q, k, v, kept, key_lengths=lengths, scale=0.4)
    ours = triton_blocks.attention(q, k, v, kept, key_lengths=lengths, scale=0.4)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)


def test_large_logits_do_not_overflow():
    shape = Shape(1, 1, 1, 64, 16, 16)
    q, k, v = shape.qkv()
    kept = shape.kept(0.5)
    expected = reference.attention(q * 100, k, v, kept)
    torch.testing.assert_close(triton_blocks.attention(q * 100, k, v, kept), expected)


SHARED_BYTES = {"sm_80": 166_912, "sm_90": 232_448, "gfx942": 65_536}


def test_compiles_for_gpus_that_are_not_here(tmp_path: Path):
    """In a process of its own: this one holds the interpreter's version of the kernel."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.kernels.compile_offline", *SHARED_BYTES],
        cwd=ROOT,
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for architecture, code in json.loads(done.stdout).items():
        assert code["matrix_instructions"] > 0, architecture
        assert code["shared_bytes"] <= SHARED_BYTES[architecture], architecture
