import numpy as np
import pytest
import torch

from rainfusion_core import SparseConfig, install
from rainfusion_core.errors import ConfigError
from rainfusion_core.render import Clip, call_arguments, render
from tests import image_pipelines, ltx_pipelines, pipelines

SPARSE = SparseConfig(sparsity=0.8, block_size=16, dense_steps=1, kernel="torch-blocks")
CLIP = Clip(
    prompt="a red circle", negative="blue", width=96, height=64, frames=17, steps=3, guidance=5.0,
    seed=0, extra={"max_sequence_length": 16},
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.wan()


def test_sparsity_zero_gives_what_the_untouched_pipeline_gives(pipeline):
    frames = render(pipeline, CLIP, SparseConfig(sparsity=0)).frames
    dense = pipelines.run(pipeline).permute(0, 2, 3, 1).numpy()
    assert frames.shape == (17, 64, 96, 3)
    np.testing.assert_allclose(frames, dense, atol=1e-5, rtol=0)


def test_the_same_seed_gives_identical_frames_and_another_does_not(pipeline):
    first = render(pipeline, CLIP, SPARSE).frames
    again = render(pipeline, CLIP, SPARSE).frames
    other = render(pipeline, Clip(**{**vars(CLIP), "seed": 1}), SPARSE).frames
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_every_stage_and_step_is_timed_and_fits_into_the_total(pipeline):
    times = render(pipeline, CLIP, SPARSE).report.times
    assert len(times.steps) == 3 and min(times.steps) > 0
    assert times.text_encoding > 0 and times.decoding > 0
    assert 0 < times.attention < times.denoising
    assert times.text_encoding + times.denoising + times.decoding <= times.total


def test_progress_tells_stages_in_order(pipeline):
    seen = []
    render(pipeline, CLIP, SPARSE, progress=lambda *event: seen.append(event))
    assert [stage for stage, step, _ in seen if step == 0] == [
        "text encoding", "text encoding", "denoising", "decoding",
    ]  # fmt: skip
    assert [event for event in seen if event[1]] == [("denoising", n, 3) for n in (1, 2, 3)]


def test_attention_is_measured_once_on_a_sparse_call(pipeline):
    speed = render(pipeline, CLIP, SPARSE).report.sparsity.speed
    assert (speed.tokens, speed.heads, speed.head_dim) == (120, 2, 16)
    assert speed.sparse_ms > 0 and speed.dense_ms > 0 and speed.repeats == 3
    assert render(pipeline, CLIP, SparseConfig(sparsity=0)).report.sparsity.speed is None


def test_measuring_leaves_the_video_alone(pipeline):
    with_it = render(pipeline, CLIP, SPARSE).frames
    assert np.array_equal(with_it, render(pipeline, CLIP, SPARSE, measure_speed=False).frames)


def test_a_render_leaves_the_pipeline_as_it_was(pipeline):
    owners = [pipeline.scheduler, pipeline.vae, pipeline.text_encoder, pipeline.transformer]
    before = [set(owner.__dict__) for owner in owners]
    frames = pipelines.run(pipeline)
    render(pipeline, CLIP, SPARSE)
    assert [set(owner.__dict__) for owner in owners] == before
    assert torch.equal(pipelines.run(pipeline), frames)


def test_an_interrupted_render_leaves_the_pipeline_as_it_was(pipeline):
    def interrupt(stage, step, steps):
        if step == 1:
            raise KeyboardInterrupt

    before = set(pipeline.vae.__dict__)
    with pytest.raises(KeyboardInterrupt):
        render(pipeline, CLIP, SPARSE, progress=interrupt)
    assert set(pipeline.vae.__dict__) == before
    assert "step" not in pipeline.scheduler.__dict__


def test_the_final_latents_are_those_that_the_decoder_was_given(pipeline):
    first = render(pipeline, CLIP, SparseConfig(sparsity=0)).latents
    assert first.shape == (1, 16, 5, 8, 12) and first.dtype == np.float32
    assert not np.array_equal(first, render(pipeline, CLIP, SPARSE).latents)


IMAGE = Clip(
    prompt="a red circle", width=76, height=60, frames=1, steps=2, guidance=3.5, seed=0,
    extra={"max_sequence_length": 11},
)  # fmt: skip


def test_an_image_is_one_frame_and_the_same_that_the_pipeline_makes():
    pipeline = image_pipelines.flux()
    rendered = render(pipeline, IMAGE, SparseConfig(sparsity=0))
    image = pipeline(**call_arguments(pipeline, IMAGE), output_type="np").images
    assert rendered.frames.shape == (1, 60, 76, 3) and rendered.frames.dtype == np.float32
    np.testing.assert_allclose(rendered.frames, image, atol=1e-5, rtol=0)
    times = rendered.report.times
    assert len(times.steps) == 2 and times.text_encoding > 0 and times.decoding > 0


def test_an_edited_image_has_the_size_that_is_asked_for():
    pipeline = image_pipelines.flux("FluxKontextPipeline")
    given = {"image": image_pipelines.picture(52, 36), "_auto_resize": False, **IMAGE.extra}
    clip = Clip(**{**vars(IMAGE), "extra": given})
    assert render(pipeline, clip, SPARSE).frames.shape == (1, 60, 76, 3)


def test_guidance_is_called_what_the_pipeline_calls_it():
    from diffusers import WanPipeline

    cases = {
        image_pipelines.flux(): "guidance_scale",  # distilled
        image_pipelines.flux(guidance_embeds=False): "true_cfg_scale",
        image_pipelines.qwen(): "true_cfg_scale",
        image_pipelines.flux2(): "guidance_scale",
        pipelines.wan(): "guidance_scale",
    }
    for pipeline, name in cases.items():
        clip = CLIP if isinstance(pipeline, WanPipeline) else IMAGE
        arguments = call_arguments(pipeline, clip)
        assert arguments[name] == clip.guidance
        assert len({"guidance_scale", "true_cfg_scale"} & set(arguments)) == 1


def test_what_a_pipeline_has_no_word_for_is_refused():
    with pytest.raises(ConfigError, match="Flux2Pipeline takes no negative prompt"):
        call_arguments(image_pipelines.flux2(), Clip(**{**vars(IMAGE), "negative": "blue"}))
    with pytest.raises(ConfigError, match="FluxPipeline makes one image, not 17 frames"):
        call_arguments(image_pipelines.flux(), Clip(**{**vars(IMAGE), "frames": 17}))


def test_pictures_reach_the_pipeline_and_the_size_is_kept():
    clip = Clip(**{**vars(IMAGE), "inputs": {"image": "picture"}, "given": {"image": "a.png"}})
    arguments = call_arguments(image_pipelines.flux("FluxKontextPipeline"), clip)
    assert arguments["image"] == "picture" and arguments["max_area"] == 60 * 76
    settings = clip.settings()
    assert settings["given"] == {"image": "a.png"} and "inputs" not in settings


def test_the_sound_of_a_model_is_kept_with_its_rate_and_others_make_none(pipeline):
    made = ltx_pipelines.ltx2()
    extra = {"max_sequence_length": 16, "use_cross_timestep": False, "stg_scale": 0.0}
    clip = Clip(
        prompt="a red circle", width=96, height=32, frames=9, steps=2, guidance=3.0, seed=0,
        extra=extra,
    )  # fmt: skip
    sound = render(made, clip, SPARSE).sound
    assert sound.rate == made.vocoder.config.output_sampling_rate
    assert sound.samples.shape[1] == 2 and sound.samples.dtype == np.float32
    assert sound.samples.std() > 0 and abs(sound.samples).max() <= 1
    arguments = call_arguments(made, clip)
    with install(made, SPARSE):
        audio = made(**arguments, output_type="np").audio
    np.testing.assert_array_equal(sound.samples, audio[0].T.numpy())
    assert render(pipeline, CLIP, SPARSE).sound is None
