"""Attention for training on a CPU with AMX: torch's forward pass, and a backward pass by tiles, `tile_attention.c`."""

import ctypes
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from matmul_attention import matmul_attention
from torch import Tensor

from rainfusion_core.kernels.c_blocks import COMPILERS, torch_parallel
from rainfusion_core.kernels.cpu_blocks import multiplies_tiles

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-shared", "-fPIC", "-march=sapphirerapids")
HEAD_DIM, KEYS = 64, 128  # what the C code is written for, and takes at a time
FEW_HEADS, PARTS = (
    8,
    4,
)  # with fewer heads than that each is shared out, so that no thread waits long


class _Job(ctypes.Structure):
    """As in the C code."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "d_out", "lse", "d_q", "d_k", "d_v")],
        *[(name, ctypes.c_int64) for name in ("tokens", "parts", "items", "next")],
        ("scale", ctypes.c_float),
        ("failed", ctypes.c_int),
    ]  # fmt: skip


class TileAttention(torch.autograd.Function):
    """Softmax attention of (batch, heads, tokens, 64), bfloat16; tokens are a multiple of 128."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        given = [x.contiguous() for x in (*ctx.saved_tensors[:4], d_out, ctx.saved_tensors[4])]
        (batch, heads, tokens, dim), count = given[0].shape, given[0].shape[0] * given[0].shape[1]
        parts = 1 if count >= FEW_HEADS else PARTS
        d_q = torch.empty(batch, heads, parts, tokens, dim)
        d_k, d_v = torch.empty_like(given[1]), torch.empty_like(given[2])
        addresses = (x.data_ptr() for x in (*given, d_q, d_k, d_v))
        job = _Job(*addresses, tokens, parts, count * parts, 0, dim**-0.5, 0)
        library().run(ctypes.byref(job), torch_parallel(), torch.get_num_threads())
        if job.failed:
            raise MemoryError("no memory for one head's backward pass")
        return d_q.sum(2).to(d_k.dtype), d_k, d_v


@lru_cache
def library() -> ctypes.CDLL | None:
    """The C code, built for this process; None without AMX, a compiler, or torch's threads."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if not (compiler and multiplies_tiles() and torch.cpu._init_amx() and torch_parallel()):
        return None
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "tile_attention.so")
        if subprocess.run([compiler, *FLAGS, SOURCE, "-o", built], capture_output=True).returncode:
            return None
        loaded = ctypes.CDLL(str(built))
    loaded.run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
    return loaded


@torch.compiler.disable
def tile_attention(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """Stands in for diffusers' dispatch; (batch, tokens, heads, head_dim). Other sizes take `matmul_attention`."""
    tokens, _, dim = query.shape[1:]
    fits = dim == HEAD_DIM and tokens == key.shape[1] and tokens % KEYS == 0
    if not (fits and library()):
        return matmul_attention(query, key, value)
    q, k, v = (x.transpose(1, 2).to(torch.bfloat16).contiguous() for x in (query, key, value))
    return TileAttention.apply(q, k, v).transpose(1, 2)
