import diffusers
import pytest
import torch

from rainfusion_core import pipeline
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.loading import schedulers
from rainfusion_core.loading.options import Classes
from tests import pipelines
from tests.core import loaded

FLOW = {"use_flow_sigmas": True}
WAN = Classes(pipeline="WanPipeline", scheduler="UniPCMultistepScheduler", scheduler_config=FLOW)


# DPMSolverMultistepScheduler hands numpy a tensor
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("family", "name", "direct"),
    [
        ("wan", "euler", lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)),
        ("wan", "dpm++", lambda: diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)),
        ("cogvideox", "cogvideox-dpm", lambda: diffusers.CogVideoXDPMScheduler()),
    ],
)  # fmt: skip
def test_another_scheduler_keeps_the_models_shift(family, name, direct):
    replaced = pipeline.load(loaded.source(family, scheduler=name))
    outcome = loaded.rendered(replaced)
    built = loaded.FAMILIES[family]()
    built.scheduler = direct()
    assert torch.equal(outcome.latents, loaded.rendered(built).latents)
    assert loaded.distance(outcome, loaded.plain(family)) > 0


def test_a_scheduler_for_another_kind_of_model_is_refused():
    with pytest.raises(
        ConfigError, match="--scheduler cogvideox-ddim does not fit WanPipeline"
    ) as e:
        schedulers.check("cogvideox-ddim", WAN)
    assert e.value.hint == "unipc, dpm++, euler fit"
    with pytest.raises(UnknownName, match="no scheduler is called 'magic'"):
        schedulers.check_name("magic")


def test_a_scheduler_that_cannot_take_the_pipelines_noise_levels_is_refused():
    flux = Classes(pipeline="FluxPipeline", scheduler="FlowMatchEulerDiscreteScheduler")
    schedulers.check("unipc", flux)
    with pytest.raises(ConfigError, match=r"dpm\+\+ cannot be given the noise levels"):
        schedulers.check("dpm++", flux)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
    ],
)
def test_the_shift_is_set_under_whatever_name_the_scheduler_has_for_it(scheduler):
    made = pipelines.wan()
    made.scheduler = scheduler
    schedulers.set_shift(made, 7.0)
    config = made.scheduler.config
    assert config.get("flow_shift", config.get("shift")) == 7.0
    assert type(made.scheduler) is type(scheduler)
