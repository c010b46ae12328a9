"""How much memory a whole sparse call takes on a CPU, on top of q, k and v, by what the system counts.

    python benchmarks/memory.py                            # 13 312 tokens, every kernel and dtype
    python benchmarks/memory.py --heads 3 --tokens 2304    # another shape

Each case has a process of its own, which resets the system's mark of its greatest resident size before each call. The
ratio is what that rose by over the bytes of q, k, v and the output together; the output is among what is counted. The
first call also pays for what a process needs once (code that is read in, programs made for these sizes, a heap for each
thread); the ratio is the median of the calls after it, and the first one's stands beside it.
"""

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from rainfusion_core.attention import sparse_attention
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import available_kernels
from rainfusion_core.layout import LatentGrid, TokenLayout
from rf_cli.record import environment

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
LATER = 5  # calls after the first
SIDE = 16  # rows and columns of a frame
# the reference holds all pairs, and FlexAttention's compiler is not ours
UNBOUNDED = ("reference", "flex", "triton-blocks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="*")
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--corrections", nargs="*", default=["none", "pooled"])
    parser.add_argument("--tokens", type=int, default=13_312, help="a multiple of 256")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--out", type=Path, help="file of the rows")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(**arguments.one)))
        return
    rows = [in_process(case) for case in cases(arguments)]
    show(rows)
    if arguments.out:
        record = {"environment": environment("cpu"), "rows": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def cases(arguments: argparse.Namespace) -> list[dict]:
    found = []
    for dtype in arguments.dtypes:
        able = available_kernels(torch.device("cpu"), DTYPES[dtype], arguments.head_dim)
        for kernel in arguments.kernels or [name for name in able if name not in UNBOUNDED]:
            found += [
                {"kernel": kernel, "dtype": dtype, "correction": correction,
                 "tokens": arguments.tokens, "heads": arguments.heads,
                 "head_dim": arguments.head_dim}
                for correction in arguments.corrections
            ]  # fmt: skip
    return found


def in_process(case: dict) -> dict:
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measured(
    *, kernel: str, dtype: str, correction: str, tokens: int, heads: int, head_dim: int
) -> dict:
    """The row of one call, in this process."""
    config = SparseConfig(kernel=kernel, correction=correction, sink=False)
    # loads what is loaded once, and starts the threads
    call(qkv(1, 2048, head_dim, DTYPES[dtype]), config)
    arguments = qkv(heads, tokens, head_dim, DTYPES[dtype])
    first, *later = (risen(lambda: call(arguments, config)) for _ in range(1 + LATER))
    extra, whole = median(later), 4 * arguments[0].nbytes
    return {
        "kernel": kernel, "dtype": dtype, "correction": correction, "tokens": tokens,
        "heads": heads, "head_dim": head_dim, "threads": torch.get_num_threads(),
        "extra_bytes": extra, "qkv_and_out_bytes": whole, "ratio": round(extra / whole, 3),
        "first_ratio": round(first / whole, 3),
    }  # fmt: skip


def qkv(heads: int, tokens: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """As models have them: heads between tokens and head_dim in memory."""
    return [torch.randn(1, tokens, heads, head_dim).to(dtype).transpose(1, 2) for _ in range(3)]


def call(arguments: list[Tensor], config: SparseConfig) -> Tensor:
    layout = TokenLayout((LatentGrid(arguments[0].shape[-2] // SIDE**2, SIDE, SIDE),))
    return sparse_attention(*arguments, layout, config)[0]


def risen(run) -> int:
    """Bytes by which the greatest resident size of this process rises in a run."""
    gc.collect()
    # else what is free already would serve the call unseen
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(mark: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(mark))


def show(rows: list[dict]) -> None:
    for row in rows:
        print(
            "{kernel:14} {dtype:9} correction {correction:7} {tokens} tokens x {heads} heads x "
            "{head_dim}: {ratio:.2f} of q + k + v + output ({first_ratio:.2f} the first time)".format(
                **row
            )
        )


if __name__ == "__main__":
    main()
