"""Compile the GPU kernels for GPUs that are not here; prints one JSON object: target -> what came out.

Run it as a module, in a process in which Triton does not interpret, with targets such as
gluon:sm_90:128 (kernel, architecture, head_dim): python -m tests.core.kernels.compile_offline ...
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas

TOOLS = Path(nvidia.__file__).parent / "bin"


def compile_target(target: str) -> dict[str, Any]:
    """What the compiler, the assembler and the disassembler say of one kernel."""
    kernel, architecture, head_dim = target.split(":")
    source, settings = SOURCES[kernel](architecture, int(head_dim))
    if architecture.startswith("gfx"):
        return _amd(triton.compile(source, GPUTarget("hip", architecture, 64), settings))
    number = int(architecture.removeprefix("sm_"))
    return _nvidia(triton.compile(source, GPUTarget("cuda", number, 32), settings), number)


def _gluon(architecture: str, head_dim: int) -> tuple[Any, dict[str, Any]]:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon._runtime import GluonASTSource

    from rainfusion_core.kernels.gluon_sm90 import _forward, launch_options

    options = launch_options(head_dim) | {"GATHER": True, "LSE": False}
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=3)
    tiles = f"tensordesc<bf16[1, 128, {options['DIM']}],{layout!r}>"
    types = {"q_ptr": "*bf16", "k_desc": tiles, "v_desc": tiles, "out_ptr": "*bf16"}
    types |= {"lse_ptr": "*fp32", "rows_ptr": "*i64", "index_ptr": "*i32", "tokens_ptr": "*i32"}
    return _source(GluonASTSource, _forward, types | {"launch_ptr": "*i32"}, options)


def _triton(architecture: str, head_dim: int) -> tuple[Any, dict[str, Any]]:
    from triton.compiler import ASTSource

    from rainfusion_core.kernels.triton_blocks import _forward, launch_options

    options = launch_options(head_dim, 128, torch.bfloat16, architecture)
    options |= {"GATHER": True, "LSE": False}
    tiles = f"tensordesc<bf16[1, {options['TILE']}, {options['PADDED_DIM']}]>"
    keys = tiles if options["DESCRIPTORS"] else "*bf16"
    types = {"q_ptr": "*bf16", "k": keys, "v": keys, "out_ptr": "*bf16", "lse_ptr": "*fp32"}
    types |= {"rows_ptr": "*i64", "index_ptr": "*i32", "tokens_ptr": "*i32", "launch_ptr": "*i32"}
    return _source(ASTSource, _forward, types, options)


def _source(kind: Any, kernel: Any, types: dict[str, str], options: dict[str, Any]) -> Any:
    """Pointers and strides are multiples of 16, what is left of the parameters are counts."""
    constants = {name: value for name, value in options.items() if name.isupper()}
    settings = {name: value for name, value in options.items() if name not in constants}
    signature = {}
    for name in kernel.arg_names:
        known = "constexpr" if name in constants else types.get(name)
        signature[name] = known or ("fp32" if name == "scale" else "i32")
    attrs = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(signature)
        if signature[name].startswith("*") or "stride" in name
    }
    return kind(kernel, signature, constants, attrs), settings


def _nvidia(compiled: Any, number: int) -> dict[str, Any]:
    ptx = compiled.asm["ptx"]
    suffix = "a" if number >= 90 else ""
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        text.write_text(ptx)
        notes = _run(get_ptxas(number).path, "-v", f"-arch=sm_{number}{suffix}", text, "-o", binary)
        binary.write_bytes(compiled.asm["cubin"])
        resources = _run(TOOLS / "cuobjdump", "--dump-resource-usage", binary)
        sass = _run(TOOLS / "cuobjdump", "--dump-sass", binary)
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


SOURCES = {"gluon": _gluon, "triton": _triton}

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: compile_target(name) for name in sys.argv[1:]}))  # noqa: T201
