"""What `rf generate` refuses, and how options, preset and defaults meet. Renders are in tests/e2e."""

import pytest
from typer.testing import CliRunner

from rf_cli import presets
from rf_cli.app import app
from rf_cli.requests import clip_of, source_of, sparse_config

PROMPT = "a red circle"
SHAPES, WAN = presets.load("shapes"), presets.load("wan2.1")
NOTHING = dict.fromkeys(["frames", "steps", "guidance", "negative"])


def config(preset=SHAPES, **given):
    names = ["sparsity", "method", "order", "dense_steps", "dense_layers", "kernel", "strict"]
    return sparse_config(preset, **{**dict.fromkeys(names), **given})


def test_the_source_is_what_the_preset_says_about_loading():
    fast = source_of(presets.load("qwen-image-8step"), dtype="bfloat16", device="cpu")
    assert fast.scheduler is not None
    assert fast.scheduler[0] == "FlowMatchEulerDiscreteScheduler"
    assert fast.fetch == "rf models pull qwen-image-8step"
    assert len(fast.options.loras) == 1
    mochi = source_of(presets.load("mochi"), dtype="bfloat16", device="cpu")
    assert mochi.variant == "bf16" and mochi.options.vae_tiling
    small = source_of(WAN, dtype="bfloat16", device="cpu", size=(832, 480))
    assert small.flow_shift == 3.0 and small.scheduler is None and not small.options.vae_tiling


def test_what_is_given_wins_over_the_preset():
    assert config(WAN).dense_steps == 0.25 and config(WAN).sparsity == 0.8
    assert config(WAN, sparsity=0.5, dense_steps="3,1").sparsity == 0.5
    given = config(WAN, dense_steps="3,1", dense_layers="0,-1")
    assert (given.dense_steps, given.dense_last_steps, given.dense_layers) == (3, 1, (0, -1))


def test_method_options_reach_the_configuration():
    assert config(WAN, method_option=["stride=8"]).options == {"stride": 8}
    assert config(WAN).options == {}


def test_the_sink_is_left_to_its_rule_unless_it_is_given():
    assert config(WAN).sink == "auto"
    assert (config(WAN, sink="on").sink, config(WAN, sink="off").sink) == (True, False)


def test_a_clip_has_the_presets_values_where_nothing_is_given():
    clip = clip_of(WAN, PROMPT, size=None, seed=3, **NOTHING)
    assert (clip.width, clip.height, clip.frames, clip.steps, clip.guidance) == (
        832,
        480,
        81,
        50,
        5,
    )
    assert clip.negative == WAN.sampling.negative and clip.seed == 3
    given = clip_of(WAN, PROMPT, size="480x832", seed=0, **{**NOTHING, "steps": 4, "negative": ""})
    assert (given.width, given.height, given.steps, given.negative) == (480, 832, 4, "")


def test_a_source_keeps_what_must_stay_float32():
    source = source_of(SHAPES, dtype="bfloat16", device="cpu")
    assert source.dtype == "bfloat16" and source.component_dtypes["vae"] == "float32"


def rf(tmp_path, *args: str, prompt=PROMPT):
    arguments = ["generate", prompt, "--output", str(tmp_path / "out.mp4"), *args]
    return CliRunner().invoke(app, arguments)


REFUSED = {
    "unknown-model": (["-m", "wan9"], "no model is called 'wan9'"),
    "missing-folder": (["-m", "./no/model"], "there is no folder ./no/model"),
    "sparsity-above-one": (["-s", "1.2"], "sparsity must be in [0, 1), got 1.2"),
    "sparsity-in-percent": (["-s", "80"], "sparsity must be in [0, 1), got 80"),
    "size-that-does-not-fit": (["--size", "100x7"], "--size 100x7 does not fit shapes"),
    "size-that-is-no-size": (["--size", "large"], "--size must be WIDTHxHEIGHT"),
    "frames": (["--frames", "32"], "--frames 32 does not fit shapes"),
    "fps": (["--fps", "0"], "--fps must be at least 1, got 0"),
    "steps": (["--steps", "0"], "--steps must be at least 1, got 0"),
    "guidance": (["--guidance", "-1"], "--guidance must be at least 0, got -1"),
    "seed": (["--seed", "-1"], "--seed must be in [0, 2**63), got -1"),
    "method": (["--method", "magic"], "no method is called 'magic'"),
    "sink": (["--sink", "maybe"], "--sink must be auto, on or off, got 'maybe'"),
    "order": (["--order", "magic"], "no token order is called 'magic'"),
    "kernel": (["--kernel", "magic"], "no kernel is called 'magic'"),
    "dense-layer": (["--dense-layers", "6"], "dense_layers names layer 6"),
    "dense-steps": (["--dense-steps", "some"], "--dense-steps must be a number or two numbers"),
    "dtype": (["--dtype", "int8"], "dtype must be auto, float32, bfloat16, float16"),
    "device": (["--device", "abacus"], "device must be auto, cpu, cuda or mps"),
    "offload": (["--offload", "disk"], "no offload is called 'disk'"),
    "offload-on-cpu": (["--offload", "model", "--device", "cpu"], "--offload model needs a GPU"),
    "quantize": (["--quantize", "int4"], "--quantize must be none, int8, fp8, nf4 or gguf:PATH"),
    "gguf-file": (["--quantize", "gguf:no.gguf"], "--quantize gguf"),
    "quantize-and-fp8": (
        ["--quantize", "fp8", "--fp8-storage"],
        "--quantize fp8 and --fp8-storage",
    ),
    "lora-file": (["--lora", "no.safetensors"], "--lora"),
    "lora-scale": (["--lora", "a.safetensors:x"], "--lora: the scale must be a number, got 'x'"),
    "cache": (["--cache", "tea"], "no cache is called 'tea'"),
    "cache-strength": (["--cache", "pab:0"], "--cache pab: the interval must be a whole number"),
    "cache-of-another-model": (["--cache", "mag"], "MagCache has no measured ratios for"),
    "scheduler": (["--scheduler", "magic"], "no scheduler is called 'magic'"),
    "scheduler-of-another-model": (
        ["--scheduler", "cogvideox-dpm"],
        "--scheduler cogvideox-dpm does not fit WanPipeline",
    ),
    "output-suffix": (["-o", "clip.gif"], "--output must end in .mp4"),
    "output-folder": (["-o", "no/such/clip.mp4"], "there is no folder no/such"),
}


@pytest.mark.parametrize(("args", "problem"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, args, problem):
    result = rf(tmp_path, *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first.startswith(f"error: {problem}")
    assert len(rest) <= 1 and all(line.startswith(" hint: ") for line in rest)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt_is_refused(tmp_path):
    result = rf(tmp_path, prompt="  ")
    assert result.exit_code == 2 and result.stderr.startswith("error: the prompt is empty")


def test_an_existing_output_is_kept(tmp_path):
    (tmp_path / "out.mp4").write_text("mine")
    result = rf(tmp_path)
    assert result.exit_code == 2 and "out.mp4 exists\n hint: --overwrite" in result.stderr
    assert (tmp_path / "out.mp4").read_text() == "mine"


def test_sizes_name_the_nearest_that_fit(tmp_path):
    result = rf(tmp_path, "--size", "100x7")
    assert result.stderr.splitlines()[1] == " hint: the nearest are 96x16 and 112x16"
