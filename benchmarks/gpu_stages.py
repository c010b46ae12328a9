"""The parts of a session on a GPU, see gpu_session.py: each prints rows of JSON."""

import json
import sys
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from rainfusion_core import fused
from rainfusion_core.attention import sparse_attention
from rainfusion_core.blocks import KeptBlocks, kept_from_mask
from rainfusion_core.config import SparseConfig
from rainfusion_core.kernels import KERNELS, reference, unavailable_reason
from rainfusion_core.kernels.dense import DENSE_KERNELS, available_dense
from rainfusion_core.layout import LatentGrid, Text, TokenLayout
from rainfusion_core.selectors import SELECTORS, Call
from rainfusion_core.timing import Span, synchronize

# kernel, and options of its launch that differ from the shipped ones
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "gluon-sm90": ("gluon-sm90", {}),
    "gluon-sm90, no turns": ("gluon-sm90", {"TURNS": False}),
    "gluon-sm90, 3 stages": ("gluon-sm90", {"STAGES": 3}),
    "triton-blocks": ("triton-blocks", {}),
}
# heads, layout, head_dim
MODELS = {
    "wan-14b-720p": (40, TokenLayout((LatentGrid(21, 45, 80),)), 128),
    "wan-14b-480p": (40, TokenLayout((LatentGrid(21, 30, 52),)), 128),
    "wan-1.3b-480p": (12, TokenLayout((LatentGrid(21, 30, 52),)), 128),
    "hunyuan-video-720p": (24, TokenLayout((LatentGrid(33, 45, 80), Text(256))), 128),
    "cogvideox-5b": (48, TokenLayout((Text(226), LatentGrid(13, 30, 45))), 64),
}
TINY = {"tiny": (2, TokenLayout((LatentGrid(3, 9, 11),)), 64)}
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)


class Bench:
    """What every part needs: the device, the models, and where a row goes."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device = torch.device(device)
        self.tiny = tiny
        self.models = TINY if tiny else MODELS
        self.dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float16
        torch.manual_seed(0)

    def model(self, name: str) -> tuple[int, TokenLayout, int]:
        return self.models.get(name) or next(iter(self.models.values()))

    def qkv(
        self, heads: int, key_heads: int, tokens: int, head_dim: int, dtype=None
    ) -> list[Tensor]:
        """As models have them: heads between tokens and head_dim in memory."""
        return [
            torch.randn(1, tokens, h, head_dim, device=self.device)
            .to(dtype or self.dtype)
            .transpose(1, 2)
            for h in (heads, key_heads, key_heads)
        ]

    def times(self, run: Callable[[], Any], repeats: int = 10) -> dict[str, float]:
        """Median, 20th and 80th percentile in milliseconds."""
        repeats = 2 if self.tiny else repeats
        for _ in range(1 if self.tiny else 2):
            run()
        spans = []
        for _ in range(repeats):
            span = Span(self.device)
            run()
            spans.append(span.stop())
        synchronize(self.device)
        ms = [span.seconds * 1e3 for span in spans]
        fifths = quantiles(ms, n=5, method="inclusive")
        return {"ms": median(ms), "ms_20": fifths[0], "ms_80": fifths[-1]}


def say(stage: str, **row: Any) -> None:
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
    print(json.dumps({"stage": stage} | rounded), flush=True)


def attention_of(arm: str, head_dim: int) -> Callable[..., Tensor]:
    """The arm's kernel, launched with its options."""
    name, changes = ARMS[arm]
    module = sys.modules[KERNELS[name].__module__]
    if not changes:
        return KERNELS[name]
    options = module.launch_options(head_dim) | changes

    def attention(*arguments: Any, **settings: Any) -> Tensor:
        with patch.object(module, "launch_options", lambda head_dim: options):
            return KERNELS[name](*arguments, **settings)

    return attention


def random_kept(heads: int, blocks: int, sparsity: float, device: torch.device) -> KeptBlocks:
    """Every row keeps as many blocks, drawn at random: the worst case for the cache."""
    from rainfusion_core.kernels.best_blocks import best_blocks

    keep = max(1, round(blocks * (1 - sparsity)))
    scores = torch.rand(1, heads, blocks, blocks, device=device)
    none = torch.zeros(blocks, dtype=torch.bool, device=device)
    return best_blocks(scores, none, keep, block_size=128, drop_pinned=False, width=keep)


def tflops(kept: KeptBlocks, head_dim: int, ms: float) -> float:
    """Of kept blocks alone; a ragged block counts as a whole one."""
    return 4 * head_dim * kept.block_size**2 * int(kept.kept_pairs) / ms / 1e9


def machine(bench: Bench, _: str) -> None:
    import triton

    size = 256 if bench.tiny else 8192
    a = torch.randn(size, size, device=bench.device).to(bench.dtype)
    source = torch.zeros(size**2 * 16, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    gemm, copy = bench.times(lambda: a @ a), bench.times(lambda: target.copy_(source))
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu"
    say(
        "machine",
        device=name,
        torch=torch.__version__,
        triton=triton.__version__,
        gemm_tflops=2 * size**3 / gemm["ms"] / 1e9,
        copy_gb_per_s=2 * source.numel() / copy["ms"] / 1e6,
    )


def check(bench: Bench, arm: str) -> None:
    """Against the reference, and twenty times over: a result that moves is a race."""
    cases = [(64, 2, 1, 300, torch.float16)] if bench.tiny else [
        (128, 3, 3, 1300, torch.bfloat16), (128, 4, 2, 1024, torch.float16),
        (64, 3, 3, 1088, torch.bfloat16), (96, 2, 1, 1300, torch.bfloat16),
    ]  # fmt: skip
    for head_dim, heads, key_heads, tokens, dtype in cases:
        q, k, v = bench.qkv(heads, key_heads, tokens, head_dim, dtype)
        blocks = -(-tokens // 128)
        mask = torch.rand(1, heads, blocks, blocks, device=bench.device) < 0.4
        mask[..., 0, :], mask[..., 1, :] = False, True
        kept = kept_from_mask(mask, 128)
        rows = torch.randperm(tokens, device=bench.device)
        lengths = torch.tensor([tokens - 77], device=bench.device)
        lse, expected_lse = (torch.zeros(1, heads, tokens, device=bench.device) for _ in range(2))
        kernel = partial(attention_of(arm, head_dim), key_lengths=lengths, rows=rows)
        out = kernel(q, k, v, kept, lse=lse)
        expected = reference.attention(
            q[:, :, rows].float(), k.float(), v.float(), kept, key_lengths=lengths, lse=expected_lse
        )
        error = (out[:, :, rows].float() - expected).norm() / expected.norm()
        some = expected_lse.isfinite()
        lse_error = (lse[..., rows] - expected_lse)[some].abs().max()
        again = [kernel(q, k, v, kept) for _ in range(1 if bench.tiny else 20)]
        stable = all(torch.equal(out, x) for x in again)
        good = bool(error < 1e-2 and lse_error < 2e-2 and stable and not out.isnan().any())
        say(
            "check", arm=arm, head_dim=head_dim, tokens=tokens, dtype=str(dtype), good=good,
            error=error.item(), lse_error=lse_error.item(), stable=stable,
        )  # fmt: skip
        if not good:
            raise SystemExit(1)


def check_front(bench: Bench, _: str) -> None:
    """The fused steps against the single ones."""
    for name, (heads, layout, head_dim) in (TINY if bench.tiny else {
        "video": (4, TokenLayout((LatentGrid(5, 21, 33),)), 128),
        "text-first": (2, TokenLayout((Text(226), LatentGrid(4, 17, 20))), 64),
    }).items():  # fmt: skip
        q, k, v = bench.qkv(heads, heads, layout.tokens, head_dim)
        expected, single = sparse_attention(q, k, v, layout, SparseConfig(kernel="reference"))
        out, kept = fused.attention(*fused_arguments(q, k, v, layout, SparseConfig()))
        error = (out.float() - expected.float()).norm() / expected.float().norm()
        good = bool(error < 1e-2 and torch.equal(kept.count, single.count))
        say("check-front", case=name, good=good, error=error.item())
        if not good:
            raise SystemExit(1)


def fused_arguments(q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, config: SparseConfig):
    method = SELECTORS[config.method]
    call = Call(layout, method.complete(config), q.shape[-1] ** -0.5)
    return q, k, v, method.ordered(q, k, call), method, call, KERNELS["triton-blocks"]


def kernel(bench: Bench, arm: str) -> None:
    """One arm at the size that the target is stated for, sparse and with every block kept."""
    heads, layout, head_dim = bench.model("wan-14b-720p")
    attention = attention_of(arm, head_dim)
    blocks = -(-layout.tokens // 128)
    for taken, sparsity in ((heads, 0.8), (max(1, heads // 5), 0.0)):
        q, k, v = (x.contiguous() for x in bench.qkv(taken, taken, layout.tokens, head_dim))
        kept = random_kept(taken, blocks, sparsity, bench.device)
        times = bench.times(lambda: attention(q, k, v, kept))  # noqa: B023
        say(
            "kernel", arm=arm, tokens=layout.tokens, heads=taken, head_dim=head_dim, sparsity=sparsity,
            tflops=tflops(kept, head_dim, times["ms"]), **times,
        )  # fmt: skip


def dense(bench: Bench, model: str) -> None:
    heads, layout, head_dim = bench.model(model)
    q, k, v = bench.qkv(heads, heads, layout.tokens, head_dim)
    for name in available_dense(bench.device, bench.dtype):
        if name != "sdpa-efficient":
            dense_row(bench, model, name, q, k, v)


def dense_row(bench: Bench, model: str, name: str, q: Tensor, k: Tensor, v: Tensor) -> float:
    try:
        times = bench.times(lambda: DENSE_KERNELS[name](q, k, v), repeats=5)
    except RuntimeError as error:
        say("dense", model=model, arm=name, error=str(error)[:200])
        return float("inf")
    work = 4 * q.shape[1] * q.shape[2] ** 2 * q.shape[3]
    say("dense", model=model, arm=name, tflops=work / times["ms"] / 1e9, **times)
    return times["ms"]


def call(bench: Bench, model: str) -> None:
    """The whole call as a model makes it, its parts, its memory, and the fastest dense kernel beside it."""
    heads, layout, head_dim = bench.model(model)
    q, k, v = bench.qkv(heads, heads, layout.tokens, head_dim)
    names = [
        n
        for n in available_dense(bench.device, bench.dtype)
        if n in ("sdpa-cudnn", "sdpa-flash", "sdpa")
    ]
    dense_ms = min(dense_row(bench, model, name, q, k, v) for name in names)
    for sink, correction in ((False, "none"), (False, "pooled"), (True, "none")):
        config = SparseConfig(sparsity=0.8, sink=sink, correction=correction)
        times = bench.times(lambda: sparse_attention(q, k, v, layout, config))  # noqa: B023
        _, kept = sparse_attention(q, k, v, layout, config)
        say(
            "call", model=model, sink=sink, correction=correction, density=kept.density, speedup=dense_ms / times["ms"],
            tflops=tflops(kept, head_dim, times["ms"]), **times, **memory(bench, q, k, v, layout, config),
        )  # fmt: skip
    front(bench, model, q, k, v, layout, dense_ms)


def memory(
    bench: Bench, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, config: SparseConfig
):
    if bench.device.type != "cuda":
        return {}
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out, _ = sparse_attention(q, k, v, layout, config)
    extra = torch.cuda.max_memory_allocated() - before
    stated = fused.extra_bytes(
        1,
        q.shape[1],
        k.shape[1],
        layout.tokens,
        q.shape[3],
        q.itemsize,
        corrected=config.correction != "none",
    )
    whole = sum(x.numel() * x.itemsize for x in (q, k, v, out))
    return {"extra_bytes": extra, "stated_bytes": stated, "qkv_and_out_bytes": whole}


def front(
    bench: Bench, model: str, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, dense_ms: float
) -> None:
    """What comes before the kernel, part by part."""
    from rainfusion_core.kernels import arrange, row_plan
    from rainfusion_core.selection.choice import keep

    _, _, _, order, method, call, _ = fused_arguments(q, k, v, layout, SparseConfig())
    gather, size = order.gather, order.block_size
    q_means, k_means = (arrange.arranged_means(x, gather, size) for x in (q, k))
    kept = keep(method.scores_of_means(q_means, k_means, call), order, call)
    parts: dict[str, Callable[[], Any]] = {
        "average queries": lambda: arrange.arranged_means(q, gather, size),
        "order and average keys": lambda: arrange.arranged_with_means(k, gather, size),
        "order values": lambda: arrange.arranged(v, gather),
        "score and choose": lambda: keep(
            method.scores_of_means(q_means, k_means, call), order, call
        ),
        "plan rows": lambda: row_plan.launch_order(row_plan.row_tokens(kept, layout.tokens, None)),
    }
    total = 0.0
    for name, part in parts.items():
        times = bench.times(part)
        total += times["ms"]
        say("front", model=model, arm=name, **times)
    say("front", model=model, arm="all", ms=total, of_dense=total / dense_ms)


def sweep(bench: Bench, model: str) -> None:
    """Effective rate and speed-up at every sparsity, of random masks and of chosen ones."""
    heads, layout, head_dim = bench.model(model)
    q, k, v = bench.qkv(heads, heads, layout.tokens, head_dim)
    arm = fastest(bench)
    ordered = [x.contiguous() for x in (q, k, v)]
    for sparsity in SPARSITIES:
        kept = random_kept(heads, -(-layout.tokens // 128), sparsity, bench.device)
        times = bench.times(lambda: KERNELS[arm](*ordered, kept), repeats=5)  # noqa: B023
        rate = tflops(kept, head_dim, times["ms"])
        say("sweep", model=model, arm=arm, masks="random", sparsity=sparsity, tflops=rate, **times)
        if sparsity:
            config = SparseConfig(sparsity=sparsity, sink=False)
            times = bench.times(lambda: sparse_attention(q, k, v, layout, config), repeats=5)  # noqa: B023
            say("sweep", model=model, arm="whole call", masks="chosen", sparsity=sparsity, **times)


def fastest(bench: Bench) -> str:
    here = (bench.device, bench.dtype, 128)
    return "triton-blocks" if unavailable_reason("gluon-sm90", *here) else "gluon-sm90"


def flex(bench: Bench, model: str) -> None:
    """FlexAttention on the same mask."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    heads, layout, head_dim = bench.model(model)
    q, k, v = (x.contiguous() for x in bench.qkv(heads, heads, layout.tokens, head_dim))
    blocks = -(-layout.tokens // 128)
    kept = random_kept(heads, blocks, 0.8, bench.device)
    # it takes lists as wide as the row
    index = torch.zeros(1, heads, blocks, blocks, dtype=torch.int32, device=bench.device)
    index[..., : kept.index.shape[-1]] = kept.index
    none = torch.zeros_like(kept.count)
    mask = BlockMask.from_kv_blocks(
        none, torch.zeros_like(index), kept.count, index, BLOCK_SIZE=(128, 128),
        seq_lengths=(layout.tokens, layout.tokens),
    )  # fmt: skip
    for arm, options in {
        "default": None,
        "128x128": {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8},
    }.items():
        compiled = flex_attention if bench.tiny else torch.compile(flex_attention, dynamic=False)
        run = partial(compiled, q, k, v, block_mask=mask, kernel_options=options)
        times = bench.times(run, repeats=5)
        rate = tflops(kept, head_dim, times["ms"])
        say("flex", model=model, arm=arm, sparsity=0.8, tflops=rate, **times)


STAGES: dict[str, Callable[[Bench, str], None]] = {
    "machine": machine,
    "check": check,
    "check-front": check_front,
    "kernel": kernel,
    "dense": dense,
    "call": call,
    "sweep": sweep,
    "flex": flex,
}
