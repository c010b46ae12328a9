"""What a whole sparse call takes on top of q, k and v: never more than they and the output take."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rainfusion_core.attention import sparse_attention
from rainfusion_core.blocks import dense_blocks
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import KERNELS as ALL
from rainfusion_core.kernels import available_kernels
from rainfusion_core.kernels.torch_blocks import attention_by_count, kept_tokens
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from tests.peak_memory import PeakMemory
from tests.shapes import Shape

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]
LAYOUT = TokenLayout((Text(40), LatentGrid(5, 13, 16)))
KERNELS = [
    n for n in ("c-blocks", "torch-blocks") if n in available_kernels(CPU, torch.float32, 64)
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def qkv(heads: int, key_heads: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """As models have them: heads between tokens and head_dim in memory."""
    sizes = [(1, LAYOUT.tokens, n, 64) for n in (heads, key_heads, key_heads)]
    return [torch.randn(size, device=CPU).to(dtype).transpose(1, 2) for size in sizes]


def peak_of(call) -> int:
    call()  # finds the order of the tokens, which later calls share
    gc.collect()
    with PeakMemory() as memory:
        call()
    return memory.peak


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("correction", ["none", "pooled"])
def test_tensors_of_a_whole_call_stay_within_the_bound(kernel, dtype, correction):
    q, k, v = qkv(8, 8, dtype)
    config = SparseConfig(block_size=32, kernel=kernel, correction=correction)
    peak = peak_of(lambda: sparse_attention(q, k, v, LAYOUT, config))
    assert q.nbytes < peak <= 4 * q.nbytes


@pytest.mark.parametrize("kernel", KERNELS)
def test_heads_with_orders_of_their_own_are_not_put_in_order_first(kernel):
    q, k, v = qkv(8, 8, torch.float32)
    kept = dense_blocks(1, 8, -(-LAYOUT.tokens // 32), block_size=32)
    rows = torch.rand(q.shape[:3]).argsort(-1)
    peak = peak_of(lambda: ALL[kernel](q, k, v, kept, rows=rows, key_rows=rows))
    assert q.nbytes < peak <= 4 * q.nbytes


@pytest.mark.parametrize("kernel", KERNELS)
def test_shared_key_heads_are_copied_once(kernel):
    q, k, v = qkv(16, 2, torch.float32)
    config = SparseConfig(block_size=32, kernel=kernel)
    peak = peak_of(lambda: sparse_attention(q, k, v, LAYOUT, config))
    assert q.nbytes < peak <= 2 * q.nbytes


def test_the_way_of_other_devices_stays_within_the_bound():
    shape = Shape(1, 8, 8, 1080, 64, 32)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in shape.qkv())
    kept = dense_blocks(1, 8, shape.blocks, block_size=32, device=q.device)
    tokens = kept_tokens(kept, shape.tokens, None)
    rows = torch.randperm(shape.tokens, device=q.device)
    peak = peak_of(lambda: attention_by_count(q, k, v, kept, tokens, 0.2, places=(rows, rows)))
    assert q.nbytes < peak <= 4 * q.nbytes


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="it takes Linux")
@pytest.mark.parametrize(
    ("kernel", "dtype", "tokens", "heads", "head_dim"),
    [
        *((kernel, "bfloat16", 13_312, 8, 128) for kernel in KERNELS),
        # some megabytes in all: what is left lying beside them counts
        *((kernel, "float16", 2304, 3, 64) for kernel in KERNELS if kernel == "c-blocks"),
    ],
)
def test_the_system_sees_no_more_than_the_bound(kernel, dtype, tokens, heads, head_dim):
    case = {"kernel": kernel, "dtype": dtype, "correction": "pooled"}
    case |= {"tokens": tokens, "heads": heads, "head_dim": head_dim}
    command = [sys.executable, "benchmarks/memory.py", "--one", json.dumps(case)]
    two = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=two)
    found = json.loads(done.stdout)
    assert 0.25 < found["ratio"] <= 1
    assert 0.25 < found["first_ratio"] <= 1
