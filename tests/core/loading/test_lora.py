import pytest
import torch
from safetensors.torch import load_file, save_file

from rainfusion_core import pipeline
from rainfusion_core.errors import ConfigError
from rainfusion_core.loading import lora
from rainfusion_core.loading.lora import Lora
from tests.core import loaded

peft = pytest.importorskip("peft", reason="LoRA needs the package peft")

TARGETS = {"wan": ["to_q", "to_k", "to_v", "to_out.0"], "cogvideox": ["to_q", "to_k", "to_v"]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """family -> LoRA weights for its tiny model, made with peft."""

    def made(family):
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(3)
        plain = pipeline.load(loaded.source(family))
        plain.transformer.add_adapter(
            peft.LoraConfig(
                r=4, lora_alpha=4, init_lora_weights=False, target_modules=TARGETS[family]
            )
        )
        layers = peft.get_peft_model_state_dict(plain.transformer)
        plain.save_lora_weights(folder, transformer_lora_layers=layers)
        return next(folder.glob("*.safetensors"))

    return {family: made(family) for family in loaded.FAMILIES}


def with_loras(family, *loras, **options):
    return loaded.rendered(pipeline.load(loaded.source(family, loras=loras, **options)))


@pytest.mark.parametrize("family", loaded.FAMILIES)
def test_fused_weights_give_what_diffusers_gives_unfused(family, weights):
    outcome = with_loras(family, Lora(str(weights[family]), 0.7))
    unfused = pipeline.load(loaded.source(family))
    unfused.load_lora_weights(str(weights[family]), adapter_name="it")
    unfused.set_adapters(["it"], [0.7])
    assert loaded.distance(outcome, loaded.rendered(unfused)) < 1e-3
    assert loaded.distance(outcome, loaded.plain(family)) > 0.01
    assert len(outcome.report.sparse_rows) == len(loaded.plain(family).report.rows)


def test_fused_weights_leave_plain_layers(weights):
    fused = pipeline.load(loaded.source("wan", loras=(Lora(str(weights["wan"])),)))
    assert type(fused.transformer.blocks[0].attn1.to_q) is torch.nn.Linear


def test_scales_add_up_and_a_folder_will_do(weights):
    file = str(weights["wan"])
    twice = with_loras("wan", Lora(str(weights["wan"].parent), 0.5), Lora(file, 0.2))
    assert loaded.distance(twice, with_loras("wan", Lora(file, 0.7))) < 1e-4
    nothing = with_loras("wan", Lora(file, 0.5), Lora(file, -0.5))
    assert loaded.distance(nothing, loaded.plain("wan")) < 1e-4


WAN = pipeline.classes_of


@pytest.mark.parametrize(
    ("location", "problem"),
    [("style.safetensors", "there is no such file"), ("./a/b", "there is no such file")],
)
def test_missing_files_are_refused(location, problem):
    with pytest.raises(ConfigError, match=problem):
        lora.check(Lora(location), WAN(loaded.source("wan")))


def test_files_without_lora_weights_are_refused(tmp_path):
    classes = WAN(loaded.source("wan"))
    save_file({"weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="holds no LoRA weights, its first is weight"):
        lora.check(Lora(str(tmp_path)), classes)
    (tmp_path / "more.safetensors").write_text("text")
    with pytest.raises(ConfigError, match="must hold exactly one"):
        lora.check(Lora(str(tmp_path)), classes)
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        lora.check(Lora(str(tmp_path / "more.safetensors")), classes)


def test_a_component_that_is_not_there_is_refused(weights):
    with pytest.raises(ConfigError, match="WanPipeline has no transformer_2 here"):
        lora.check(Lora(str(weights["wan"]), component="transformer_2"), WAN(loaded.source("wan")))


def test_weights_for_another_model_are_refused(weights, tmp_path):
    with pytest.raises(ConfigError, match="does not fit"):
        with_loras("wan", Lora(str(weights["cogvideox"])))
    renamed = {f"unet.{k}": v for k, v in load_file(weights["wan"]).items()}
    save_file(renamed, tmp_path / "unet.safetensors")
    with pytest.raises(ConfigError, match="does not fit"):
        with_loras("wan", Lora(str(tmp_path / "unet.safetensors")))
