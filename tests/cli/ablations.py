"""A small ablation that tests of record, tables and page share: two prompts, two seeds, cells made up."""

from rainfusion_core.config import SparseConfig
from rainfusion_core.render import Clip
from rainfusion_core.study.ablation import Variant
from rf_cli import ablate_plan, ablate_record
from rf_cli.ablate_plan import IDEAS, METHODS, SINK, Entry, Plan
from rf_cli.ablate_run import Ablation

SIZE = "32x32"
PROMPTS = ("a {{red}} <circle>", "a blue star")
ENVIRONMENT = {"device": "cpu", "device_name": "a processor"}
FACTS = {"model": "shapes", "weights": "abc", "dtype": "float32"}


def entry(group, **factors):
    name = ", ".join(f"{key} {value}" for key, value in factors.items())
    block = factors.get("block", 128)
    config = SparseConfig(sparsity=0.8, block_size=block, options={"name": name})
    return Entry(group, {**factors, "density": 0.2}, Variant(name, config, 0.2))


ENTRIES = [
    entry(METHODS, method="good"),
    entry(METHODS, method="bad"),
    entry(METHODS, method="refuses"),
    entry(SINK, sink="on"),
    entry(SINK, sink="off"),
    *(entry(IDEAS, representative=r, order=o, block=128)
      for r in ("mean", "last") for o in ("compact", "raster")),
]  # fmt: skip


def plan(entries=ENTRIES):
    clips = [
        Clip(prompt=prompt, width=32, height=32, frames=5, steps=4, guidance=1.0, seed=seed)
        for seed in (0, 1)
        for prompt in PROMPTS
    ]
    return Plan(
        clips={SIZE: clips}, named=[None] * 4, layers=(0, 3), steps=(2,), entries=entries,
        scale=ablate_plan.QUICK,
    )  # fmt: skip


def outcome(recall, **changes):
    made = {
        "density": 0.21, "recall": recall, "best_recall": 0.9, "rank_correlation": 0.5,
        "error": 1 - recall, "predict_ms": 2.0, "attention_ms": 5.0, "dense_ms": 20.0,
        "unsupported": None,
    }  # fmt: skip
    return {**made, **changes}


def rendered(psnr):
    return {
        "density": 0.2, "psnr": psnr, "ssim": 0.9, "lpips": None, "agreement": 0.5,
        "dense_agreement": 1.0, "times": {"denoising": 1.0, "attention": 0.5},
        "dense_times": {"denoising": 2.0, "attention": 2.0},
    }  # fmt: skip


def fill(ablation, recalls):
    """Cells of every clip and layer: `recalls` by variant name, a hundredth more with each clip."""
    for each in ablation.plan.entries:
        for index in range(4):
            for layer in (0, 3):
                key = ablation.key(each, SIZE, index, (layer, 2))
                recall = recalls.get(each.variant.name, 0.5) + index / 100
                changes = {"unsupported": "odd frames"} if "refuses" in each.variant.name else {}
                ablation.cells.put(key, outcome(recall, **changes))


def ablation(folder, recalls=None):
    def load():
        raise AssertionError("loaded")

    made = Ablation(folder, plan(), load=load, facts=FACTS)
    fill(made, recalls or {"method good": 0.8, "method bad": 0.4})
    return made


def record(folder, recalls=None):
    made = ablation(folder, recalls)
    return ablate_record.record(made, command="rf ablate x", environment=ENVIRONMENT)
