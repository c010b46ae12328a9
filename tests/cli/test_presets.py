"""The shipped presets: each says of its model what the model is, and where it says so from."""

import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch

from rainfusion_core.loading.random_weights import parameter_count, transformer_class
from rainfusion_core.pipeline import DTYPES
from rf_cli import presets
from rf_cli.presets.schema import Dtype

SHIPPED = sorted(path.stem for path in presets.FOLDER.glob("*.toml"))
SOURCED = [
    "licence", "parameters", "model.location", "tasks", "transformer", "video.width", "video.frames",
    "video.sizes", "video.token", "sampling.steps", "sampling.guidance", "sparse.sparsity",
    "sparse.dense_steps",
]  # fmt: skip
FEW_STEPS = [name for name in SHIPPED if presets.load(name).sampling.steps <= 8]


@cache
def counted(class_name: str, config: str) -> int:
    table = next(
        preset.transformer.config
        for preset in presets.all_presets()
        if preset.transformer.class_name == class_name and repr(preset.transformer.config) == config
    )
    return parameter_count(class_name, table)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_transformer_table_describes_the_model(name):
    """Built on the meta device: no memory, no weights."""
    preset = presets.load(name)
    table = preset.transformer
    assert counted(table.class_name, repr(table.config)) == pytest.approx(
        preset.parameters, rel=0.01
    )


STORED = re.compile(r"files on the hub: ([\d.]+) GB, (\d) bytes a parameter \((\S+/\S+)")
# of these no file was found whose size is told to three digits and whose weights all have one dtype
ROUNDED = {
    "cosmos2", "flux2", "flux2-klein", "hunyuanvideo-1.5", "hunyuanvideo-1.5-i2v-8step", "kandinsky5-lite",
    "kandinsky5-pro", "skyreels-v2-i2v", "wan2.1-vace-1.3b", "wan2.1-vace-14b", "wan2.2-5b",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SHIPPED if presets.load(n).published])
def test_the_counted_parameters_are_those_of_the_published_files(name):
    preset = presets.load(name)
    stored = STORED.search(preset.source("parameters"))
    if stored is None:
        shapes = {presets.load(each).parameters for each in ROUNDED}
        assert preset.parameters in shapes, f"nothing is known of {name}'s files"
        return
    gigabytes, each, _ = stored.groups()
    assert len(gigabytes.replace(".", "").lstrip("0")) >= 3
    assert preset.parameters == pytest.approx(float(gigabytes) * 1e9 / int(each), rel=0.01)


def test_models_of_which_a_rounded_name_alone_is_published_are_named_in_the_docs():
    page = Path(__file__).parents[2].joinpath("docs", "models.md").read_text("utf-8")
    (sentence,) = [line for line in page.splitlines() if "three digits" in line]
    assert set(re.findall("`([^`]+)`", sentence)) == ROUNDED


@pytest.mark.parametrize("name", SHIPPED)
def test_the_published_size_is_the_counted_one_or_the_preset_says_why_not(name):
    preset = presets.load(name)
    if not preset.published:
        assert preset.parameters < 1e9, "a published model has a published size"
        return
    size = float(preset.published.removesuffix("B"))
    digits = len(preset.published.partition(".")[2].removesuffix("B"))
    rounded = round(preset.parameters / 1e9, digits)
    assert rounded == size or re.search("leaves out|without|rounded", preset.source("published")), (
        f"{name} has {preset.parameters / 1e9:.2f} B parameters, published are {preset.published}"
    )
    assert 0.6 * size <= preset.parameters / 1e9 <= 1.7 * size


@pytest.mark.parametrize("name", SHIPPED)
def test_every_pipeline_is_one_of_diffusers(name):
    for pipeline in presets.load(name).tasks.values():
        assert transformer_class(pipeline).__name__ == pipeline


@pytest.mark.parametrize("name", SHIPPED)
def test_every_other_class_is_one_of_diffusers(name):
    preset = presets.load(name)
    for part in filter(None, (preset.vae, preset.scheduler)):
        with torch.device("meta"):
            built = transformer_class(part.class_name)(**part.config)
        assert {key: built.config[key] for key in part.config} == part.config


@pytest.mark.parametrize("name", SHIPPED)
def test_every_default_has_a_source(name):
    preset = presets.load(name)
    for key in SOURCED:
        told = preset.source(key)
        assert told and not told.endswith(".toml"), f"{name} does not say where {key} is from"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_picture_model_makes_pictures_and_a_video_model_videos(name):
    preset = presets.load(name)
    pictures = {"text-to-image", "edit"}
    assert preset.video.is_picture == bool(pictures & set(preset.tasks))
    assert preset.video.is_picture == (set(preset.tasks) <= pictures)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_pinned_revision_is_a_commit(name):
    preset = presets.load(name)
    pins = [preset.model.revision, *(lora.revision for lora in preset.loras)]
    assert all(re.fullmatch("[0-9a-f]{40}", pin) for pin in pins if pin is not None)


@pytest.mark.parametrize("name", FEW_STEPS)
def test_a_few_step_model_keeps_only_the_first_step_dense(name):
    assert presets.load(name).sparse.dense_steps == 1


def test_every_name_and_alias_means_one_model():
    known = presets.all_presets()
    spoken = [word for preset in known for word in (preset.name, *preset.aliases)]
    assert len(spoken) == len(set(spoken))


def test_dtypes_are_those_of_the_core():
    assert set(get_args(Dtype)) == set(DTYPES)


@pytest.mark.parametrize(
    ("name", "clip", "tokens"),
    [
        ("shapes", (128, 128, 33), 2304),
        ("shapes", (256, 256, 49), 13312),
        ("wan2.1-1.3b", (832, 480, 81), 32760),
        ("wan2.1-14b", (1280, 720, 81), 75600),
        ("wan2.2-5b", (1280, 704, 121), 27280),
        ("skyreels-v2", (960, 544, 97), 51000),
        ("hunyuanvideo", (1280, 720, 129), 118800),
        ("hunyuanvideo-1.5", (848, 480, 121), 49290),
        ("cogvideox-5b", (720, 480, 49), 17550),
        ("cogvideox1.5-5b", (1360, 768, 81), 44880),
        ("ltx-video", (704, 512, 161), 7392),
        ("ltx-2", (768, 512, 121), 6144),
        ("mochi", (848, 480, 163), 44520),
        ("allegro", (1280, 720, 88), 79200),
        ("kandinsky5-lite", (768, 512, 121), 47616),
        ("cosmos2", (1280, 704, 93), 84480),
        ("qwen-image", (1328, 1328, 1), 6889),
        ("flux-dev", (1024, 1024, 1), 4096),
    ],
)
def test_tokens_of_a_clip(name, clip, tokens):
    preset = presets.load(name)
    preset.video.check(name, *clip)
    assert preset.video.tokens(*clip) == tokens
