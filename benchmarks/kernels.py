"""Attention kernels against each other and against their peers, in one run on this machine.

    python benchmarks/kernels.py                 # every shape that the machine can take
    python benchmarks/kernels.py --quick         # under two minutes on two CPU cores
    python benchmarks/kernels.py --break-even    # where sparse overtakes dense: rainfusion_core/measured.json

Arms of one call take turns, so that a machine whose speed drifts is fair to all. Effective TFLOPS count kept blocks
only; GB/s count q, k, v and the output once; errors are relative, against the reference in float32.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from rainfusion_core import fused
from rainfusion_core.attention import choose, sparse_attention
from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import KERNELS, choose_kernel, reference, unavailable_reason
from rainfusion_core.kernels.correction import corrected
from rainfusion_core.kernels.dense import DENSE_KERNELS, available_dense
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selection.pooling import block_means
from rainfusion_core.selectors import SELECTORS, Call
from rainfusion_core.timing import synchronize
from rf_cli.record import environment

sys.path.insert(0, str(Path(__file__).parent))
from kernels_chart import chart
from kernels_peers import PEERS

BLOCK = 128
RESULTS = Path(__file__).parent / "results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# on a CPU: heads of a call, and operations of one head, which two cores do in about three seconds
CPU_HEADS, CPU_FLOPS = 3, 7e11


@dataclass(frozen=True)
class Shape:
    """One self-attention call of a model."""

    heads: int
    head_dim: int
    grid: tuple[int, int, int]
    text: int = 0

    @property
    def layout(self) -> TokenLayout:
        text = (Text(self.text),) if self.text else ()
        return TokenLayout((LatentGrid(*self.grid), *text))

    @property
    def tokens(self) -> int:
        return self.layout.tokens


SHAPES = {
    "shapes": Shape(3, 64, (9, 16, 16)),
    "8k-128": Shape(24, 128, (8, 32, 32)),
    "13k-64": Shape(24, 64, (13, 32, 32)),
    "cogvideox-5b": Shape(48, 64, (13, 30, 45), text=226),
    "wan-1.3b-480p": Shape(12, 128, (21, 30, 52)),
    "wan-14b-480p": Shape(40, 128, (21, 30, 52)),
    "wan-1.3b-720p": Shape(12, 128, (21, 45, 80)),
    "wan-14b-720p": Shape(40, 128, (21, 45, 80)),
    "hunyuan-video-720p": Shape(24, 128, (33, 45, 80), text=256),
}
# threads of OpenMP wait busily for some milliseconds after their work, and every arm has its own
PAUSE_S = 0.03
# arms that choose blocks themselves, so that nothing can be said of their error
OTHER_MASKS = ("whole call", "front end")
# of somebody else's kernel
FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, ImportError, AssertionError)
QUICK = ("shapes", "8k-128", "13k-64")


@dataclass
class Case:
    """One call: its numbers, its mask, and what is measured on it."""

    name: str
    shape: Shape
    q: Tensor
    k: Tensor
    v: Tensor
    kept: KeptBlocks
    sparsity: float
    mask: str
    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)


def qkv(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random tokens; blocks have something in common, or there would be nothing to select."""
    heads = min(shape.heads, CPU_HEADS) if device.type == "cpu" else shape.heads
    size = (1, heads, shape.tokens, shape.head_dim)
    blocks = torch.randn(3, *size[:2], -(-shape.tokens // BLOCK), shape.head_dim, device=device)
    shared = blocks.repeat_interleave(BLOCK, dim=-2)[..., : shape.tokens, :] * 0.5
    q, k, v = (torch.randn(3, *size, device=device) + shared).to(dtype)
    return q, k, v


def random_mask(q: Tensor, k: Tensor, sparsity: float) -> Tensor:
    """As many random blocks in every row, one more in some: the share is met exactly."""
    blocks = -(-q.shape[-2] // BLOCK)
    ends = (torch.arange(blocks + 1) * blocks * (1 - sparsity) + 1e-6).floor()
    rank = torch.rand(*q.shape[:2], blocks, blocks).argsort(-1).argsort(-1)
    return rank < ends.diff().clamp(min=1)[:, None]


def selected_mask(q: Tensor, k: Tensor, sparsity: float) -> Tensor:
    """The blocks with the best scores of means, as many as `random_mask` keeps."""
    scores = block_means(q, BLOCK) @ block_means(k, BLOCK).mT
    width = random_mask(q, k, sparsity).sum(-1, keepdim=True)
    return scores.argsort(-1, descending=True).argsort(-1).cpu() < width


MASKS = {"random": random_mask, "selected": selected_mask}


def arms_of(case: Case, skipped: dict[str, str]) -> dict[str, Callable[[], Tensor]]:
    q, k, v, kept = case.q, case.k, case.v, case.kept
    arms: dict[str, Callable[[], Tensor]] = {}
    for name in available_dense(q.device, q.dtype):
        arms[f"dense {name}"] = lambda name=name: DENSE_KERNELS[name](q, k, v)
    for name in KERNELS:
        reason = unavailable_reason(name, q.device, q.dtype, q.shape[-1])
        if name == "triton-blocks" and q.device.type == "cpu":
            reason = "it needs a GPU, the device is cpu"
        if reason is None and name != "reference" and case.sparsity:
            arms[name] = lambda name=name: KERNELS[name](q, k, v, kept)
        elif reason is not None:
            skipped[name] = reason
    if case.sparsity:
        name, kernel = choose_kernel("auto", q.device, q.dtype, q.shape[-1])
        # made here: `name` is another one below, and would choose the pass of any other kernel
        merged = corrected(name, kernel)
        arms[f"{name} corrected"] = lambda: merged(q, k, v, kept)
        arms["whole call"] = whole_call(case)
        arms["front end"] = front_end(case)
    for name, peer in PEERS.items():
        try:
            made = peer(q, k, v, kept, case.sparsity)
        except FAILURES as error:
            made = failed(error)
        if isinstance(made, str):
            skipped[name] = made
        else:
            arms[name] = made
    return arms


def whole_call(case: Case) -> Callable[[], Tensor]:
    """Order, selection, kernel and restoring, at the same share of kept pairs."""
    config = SparseConfig(sparsity=case.sparsity, sink=False, kernel="auto")
    return lambda: sparse_attention(case.q, case.k, case.v, case.shape.layout, config)[0]


def front_end(case: Case) -> Callable[[], Tensor]:
    """What a whole call spends outside of the kernel."""
    config = SparseConfig(sparsity=case.sparsity, sink=False)
    method, q, k, v = SELECTORS[config.method], case.q, case.k, case.v
    call = Call(case.shape.layout, method.complete(config), q.shape[-1] ** -0.5)
    name, _ = choose_kernel("auto", q.device, q.dtype, q.shape[-1])

    def run() -> Tensor:
        order = method.ordered(q, k, call)
        if not fused.can_fuse(method, call, name, q.device):
            return choose(q, k, order, method, call, name).index
        ordered = fused.put_in_order(q, k, v, order, call)
        return fused.choose(ordered.q_means, ordered.k_means, order, method, call).index

    return run


def measure(case: Case, repeats: int, skipped: dict[str, str]) -> None:
    """Time every arm in turn, after one untimed run from which the errors are taken."""
    arms = arms_of(case, skipped)
    for run, (name, arm) in itertools.product(range(repeats + 1), list(arms.items())):
        if name not in arms:
            continue
        synchronize(case.q.device)
        time.sleep(PAUSE_S)
        begin = time.perf_counter()
        try:
            out = arm()
        except FAILURES as error:
            skipped[name] = failed(error)
            arms.pop(name)
            continue
        synchronize(case.q.device)
        if run:
            case.times.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))
        elif name not in OTHER_MASKS and not name.endswith(" corrected"):
            case.errors[name] = error_of(case, out, dense=name.startswith("dense "))


def failed(error: Exception) -> str:
    return f"failed: {(str(error) or type(error).__name__).splitlines()[0][:90]}"


def error_of(case: Case, out: Tensor, *, dense: bool) -> float:
    """Relative to the reference in float32, over two query blocks of the first head."""
    rows = [0, case.kept.count.shape[-1] // 2]
    places = torch.cat([torch.arange(row * BLOCK, (row + 1) * BLOCK) for row in rows])
    places = places[places < case.q.shape[-2]].to(case.q.device)
    index, count = (x[:1, :1, rows] for x in (case.kept.index, case.kept.count))
    if dense:
        index = torch.arange(case.kept.key_blocks, device=index.device, dtype=index.dtype)
        index = index.expand(1, 1, len(rows), -1)
        count = torch.full_like(count, case.kept.key_blocks)
    kept = KeptBlocks(index, count, case.kept.key_blocks, BLOCK)
    q, k, v = (x[:1, :1].float() for x in (case.q, case.k, case.v))
    exact = reference.attention(q[:, :, places], k, v, kept)
    return ((out[:1, :1, places].float() - exact).norm() / exact.norm()).item()


def rows_of(case: Case) -> Iterator[dict]:
    q = case.q
    dense = {n: median(t) for n, t in case.times.items() if n.startswith("dense ")}
    fastest = min(dense, key=dense.__getitem__)
    moved = 4 * q.numel() * q.element_size()
    for name, times in case.times.items():
        fifths = quantiles(times, n=5, method="inclusive")
        low, middle, high = fifths[0], median(times), fifths[-1]
        share = 1.0 if name.startswith("dense ") else case.kept.density
        flops = 4 * q.shape[1] * q.shape[-1] * q.shape[-2] ** 2 * share
        yield {
            "shape": case.name, "tokens": q.shape[-2], "heads": q.shape[1],
            "head_dim": q.shape[-1], "dtype": str(q.dtype).removeprefix("torch."),
            "sparsity": case.sparsity, "density": case.kept.density, "mask": case.mask,
            "arm": name, "ms": middle, "ms_p20": low, "ms_p80": high, "repeats": len(times),
            "effective_tflops": flops / middle / 1e9, "gb_s": moved / middle / 1e6,
            "speedup_over_sdpa": median(case.times["dense sdpa"]) / middle,
            "speedup_over_fastest_dense": dense[fastest] / middle, "fastest_dense": fastest,
            "relative_error": case.errors.get(name),
        }  # fmt: skip


def fitting(device: torch.device, names: list[str]) -> list[str]:
    """The shapes that this machine can take; what is left out or cut is said aloud."""
    kept = []
    for name in names:
        shape = SHAPES[name]
        flops = 4 * shape.tokens**2 * shape.head_dim
        if device.type == "cpu" and flops > CPU_FLOPS:
            print(f"{name}: left out, {flops / 1e12:.1f} TFLOP a head are too many for a CPU")
            continue
        if device.type == "cpu" and shape.heads > CPU_HEADS:
            print(f"{name}: {CPU_HEADS} heads of {shape.heads}, the others are like them")
        kept.append(name)
    return kept


def run(arguments: argparse.Namespace, device: torch.device) -> tuple[list[dict], dict[str, str]]:
    rows: list[dict] = []
    skipped: dict[str, str] = {}
    for name in fitting(device, arguments.shapes):
        for dtype, mask, sparsity in itertools.product(
            arguments.dtypes, MASKS, arguments.sparsities
        ):
            if mask == "selected" and sparsity not in arguments.selected:
                continue
            torch._dynamo.reset()  # FlexAttention compiles every shape, up to a limit
            q, k, v = qkv(SHAPES[name], DTYPES[dtype], device)
            kept = kept_from_mask(MASKS[mask](q, k, sparsity).to(device), BLOCK)
            case = Case(name, SHAPES[name], q, k, v, kept, sparsity, mask)
            measure(case, arguments.repeats, skipped)
            rows += rows_of(case)
            print(f"{name} {dtype} {mask} {sparsity:g}: {len(case.times)} arms", flush=True)
    return rows, skipped


def show(rows: list[dict], skipped: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("shape", "dtype", "skipped", "mask", "arm", "ms (20-80 %)", "TFLOPS", "GB/s",
                  "over SDPA", "over fastest dense", "error")  # fmt: skip
    for row in rows:
        error = row["relative_error"]
        table.add_row(
            row["shape"], row["dtype"], f"{1 - row['density']:.1%}", row["mask"], row["arm"],
            f"{row['ms']:.2f} ({row['ms_p20']:.2f}-{row['ms_p80']:.2f})",
            f"{row['effective_tflops']:.3g}", f"{row['gb_s']:.3g}",
            f"{row['speedup_over_sdpa']:.2f}x", f"{row['speedup_over_fastest_dense']:.2f}x",
            "" if error is None else f"{error:.1e}",
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    for name, reason in skipped.items():
        console.print(f"not run: {name}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES)
    parser.add_argument("--dtypes", nargs="*", choices=DTYPES)
    parser.add_argument("--sparsities", nargs="*", type=float)
    parser.add_argument("--selected", nargs="*", type=float, default=[0.8])
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--break-even", action="store_true")
    parser.add_argument("--out", type=Path, help="folder of the rows and the chart")
    arguments = parser.parse_args()
    device, quick = torch.device(arguments.device), arguments.quick
    torch.manual_seed(0)
    if arguments.break_even:
        from kernels_break_even import measure_break_even

        return measure_break_even(device)
    halves = ["bfloat16"] if device.type == "cuda" else ["float32", "bfloat16"]
    arguments.shapes = arguments.shapes or list(QUICK if quick else SHAPES)
    arguments.dtypes = arguments.dtypes or halves
    arguments.sparsities = arguments.sparsities or (
        [0.8] if quick else [0.0, 0.5, 0.7, 0.8, 0.9, 0.95]
    )
    if quick:
        arguments.selected = []
    arguments.repeats = arguments.repeats or (5 if quick else 9)
    rows, skipped = run(arguments, device)
    show(rows, skipped)
    found = environment(str(device))
    folder = arguments.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"kernels-{device.type}" + ("-quick" if quick else "")
    record = {"environment": found, "not_run": skipped, "rows": rows}
    (folder / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{stem}.png").write_bytes(chart(rows, found))
    print(f"wrote {folder / stem}.json and .png")


if __name__ == "__main__":
    main()
