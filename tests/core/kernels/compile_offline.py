"""Compile the GPU kernels for GPUs that are not here; prints one JSON object: target -> what came out.

The public functions are called with tensors on the CPU, and what they would launch is compiled for
the GPU that Triton is told of, but not run. Run it as a module, in a process in which Triton does
not interpret, with targets such as gluon:sm_90:128 (call, architecture, head_dim or columns).
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from triton import knobs
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from rainfusion_core.blocks import dense_blocks
from rainfusion_core.kernels import arrange, best_blocks, triton_blocks, triton_means

TOOLS = Path(nvidia.__file__).parent / "bin"
TOKENS, HEADS, KEY_HEADS = 300, 4, 2


def _attend(attention: Callable[..., Any], head_dim: int, **settings: Any) -> None:
    q, k, v = (
        torch.zeros(1, heads, TOKENS, head_dim, dtype=torch.bfloat16)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    kept = dense_blocks(1, HEADS, -(-TOKENS // 128), block_size=128)
    attention(q, k, v, kept, rows=torch.arange(TOKENS), **settings)


def _gluon(head_dim: int) -> None:
    from rainfusion_core.kernels.gluon_sm90 import attention

    _attend(attention, head_dim)


def _gluon_lse(head_dim: int) -> None:
    from rainfusion_core.kernels.gluon_sm90 import attention

    _attend(attention, head_dim, lse=torch.zeros(1, HEADS, TOKENS))


def _triton(head_dim: int) -> None:
    _attend(triton_blocks.attention, head_dim)


def _arrange(head_dim: int) -> None:
    x = torch.zeros(1, HEADS, TOKENS, head_dim, dtype=torch.bfloat16)
    arrange.arranged_with_means(x, torch.arange(TOKENS), 128)


def _choose(columns: int) -> None:
    pinned = torch.zeros(columns, dtype=torch.bool)
    best_blocks.best_blocks(
        torch.zeros(1, 1, columns, columns), pinned, 64, block_size=128, drop_pinned=True, width=64
    )


def _means(head_dim: int) -> None:
    q = torch.zeros(1, HEADS, TOKENS, head_dim, dtype=torch.bfloat16)
    kept = dense_blocks(1, HEADS, -(-TOKENS // 128), block_size=128)
    means = torch.zeros(1, KEY_HEADS, kept.key_blocks, head_dim)
    lse, rows = torch.zeros(1, HEADS, TOKENS), torch.arange(TOKENS)
    triton_means.add_means(q, means, means, kept, q, lse, keys=TOKENS, scale=1.0, rows=rows)


CALLS = {
    "gluon": _gluon,
    "gluon-lse": _gluon_lse,
    "triton": _triton,
    "arrange": _arrange,
    "choose": _choose,
    "means": _means,
}


class Gpu:
    """What Triton asks of the driver of a GPU before it launches a kernel."""

    # Triton remembers what it compiled for a device by its number
    numbers: tuple[str, ...] = ()

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        Gpu.numbers += () if architecture in Gpu.numbers else (architecture,)

    def get_current_target(self) -> GPUTarget:
        if self.architecture.startswith("gfx"):
            return GPUTarget("hip", self.architecture, 64)
        return GPUTarget("cuda", int(self.architecture.removeprefix("sm_")), 32)

    def get_current_device(self) -> int:
        return self.numbers.index(self.architecture)

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_target(target: str) -> dict[str, Any]:
    """What the compiler, the assembler and the disassembler say of the kernel launched last."""
    name, architecture, size = target.split(":")
    launched: list[Any] = []
    run = JITFunction.run

    def only_compile(self: JITFunction, *arguments: Any, grid: Any, warmup: bool, **options: Any):
        launched.append(run(self, *arguments, grid=grid, warmup=True, **options))

    driver.set_active(Gpu(architecture))
    with (
        redirect_stdout(StringIO()) as notes,
        patch.object(knobs.nvidia, "dump_ptxas_log", True),
        patch.object(JITFunction, "run", only_compile),
        patch.object(triton_blocks, "architecture_of", lambda device: architecture),
    ):
        CALLS[name](int(size))
    if architecture.startswith("gfx"):
        return _amd(launched[-1])
    return _nvidia(launched[-1], notes.getvalue())


def _nvidia(compiled: Any, notes: str) -> dict[str, Any]:
    """`notes`: what the assembler said, of this kernel last."""
    ptx = compiled.asm["ptx"]
    notes = notes[notes.rindex("Compiling entry function") :]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as binary:
        binary.write(compiled.asm["cubin"])
        binary.flush()
        resources = _run(TOOLS / "cuobjdump", "--dump-resource-usage", binary.name)
        sass = _run(TOOLS / "cuobjdump", "--dump-sass", binary.name)
    usage = {name.lower(): int(size) for name, size in re.findall(r"(REG|STACK):(\d+)", resources)}
    return usage | {
        "shared": compiled.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync"),
        "tcgen05": ptx.count("tcgen05.mma"),
        "tma": ptx.count("cp.async.bulk.tensor"),
        "notes": [line for line in notes.splitlines() if re.search(r"C75\d\d|serializ", line)],
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", notes))),
        "loops": hot_loops(sass),
    }


def _amd(compiled: Any) -> dict[str, Any]:
    code = compiled.asm["amdgcn"]
    numbers = {key: int(value) for key, value in re.findall(r"\.(\w+):\s+(\d+)", code)}
    return {
        "reg": numbers["vgpr_count"],
        "spilled": numbers["vgpr_spill_count"],
        "shared": compiled.metadata.shared,
        "mma": code.count("v_mfma"),
        "wgmma": 0,
        "tcgen05": 0,
    }


def hot_loops(sass: str) -> list[list[str]]:
    """Instructions of every innermost loop that multiplies matrices, in order, without operands."""
    found = re.findall(r"^\s*/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+ )?(.*?);", sass, re.MULTILINE)
    code = [(int(address, 16), text) for address, text in found]
    loops = []
    for address, text in code:
        back = re.match(r"BRA.*?0x([0-9a-f]+)", text)
        if back and int(back[1], 16) < address:
            loops.append((int(back[1], 16), address))
    inner = [x for x in loops if not any(x != y and x[0] <= y[0] and y[1] <= x[1] for y in loops)]
    bodies = [[text.split()[0] for at, text in code if start <= at <= end] for start, end in inner]
    return [body for body in bodies if any("MMA" in name for name in body)]


def _run(*command: Any) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: compile_target(name) for name in sys.argv[1:]}))  # noqa: T201
