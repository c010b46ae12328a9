"""Compile the Triton kernel for GPUs that are not here; prints one JSON object: architecture -> what came out.

Run it as a module, in a process in which Triton does not interpret: python -m tests.core.kernels.compile_offline sm_90
"""

import json
import sys

import torch
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rainfusion_core.kernels.triton_blocks import _forward, launch_options

POINTERS = {
    "q_ptr": "*bf16",
    "k_ptr": "*bf16",
    "v_ptr": "*bf16",
    "out_ptr": "*bf16",
    "lse_ptr": "*fp32",
    "index_ptr": "*i32",
    "tokens_ptr": "*i32",
    "launch_ptr": "*i32",
}
SCALARS = {"queries": "i32", "keys": "i32", "width": "i32", "shared": "i32", "scale": "fp32"}


def compile_for(architecture: str, head_dim: int) -> dict[str, int]:
    """Matrix instructions in the code, and bytes of shared memory a block of threads needs."""
    options = launch_options(head_dim, 128, torch.bfloat16, architecture)
    constants = {name: value for name, value in options.items() if name.isupper()}
    constants["LSE"] = True
    source = ASTSource(
        _forward,
        signature=POINTERS | SCALARS | dict.fromkeys(constants, "constexpr"),
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in range(len(POINTERS))},
    )
    amd = architecture.startswith("gfx")
    target = (
        GPUTarget("hip", architecture, 64)
        if amd
        else GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    )
    settings = {name: value for name, value in options.items() if name not in constants}
    compiled = compile_kernel(source, target=target, options=settings)
    code = compiled.asm["amdgcn" if amd else "ptx"]
    words = ("v_mfma",) if amd else ("wgmma.mma_async", "mma.sync")
    return {
        "matrix_instructions": sum(code.count(word) for word in words),
        "shared_bytes": compiled.metadata.shared,
    }


if __name__ == "__main__":
    print(json.dumps({name: compile_for(name, head_dim=128) for name in sys.argv[1:]}))  # noqa: T201
