from collections import Counter
from dataclasses import replace

import pytest
import torch

from rainfusion_core import SparseConfig, pipeline
from rainfusion_core.errors import ConfigError, UnknownName
from rainfusion_core.loading import caches
from rainfusion_core.loading.options import Classes
from tests.core import loaded

STEPS = 8
CACHES = ["first-block:0.3", "taylor:2", "pab:2"]
DENSE = SparseConfig(sparsity=0.0, block_size=16, kernel="torch-blocks")


@pytest.fixture(scope="module", params=loaded.FAMILIES)
def family(request):
    return request.param


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_skips_calls_that_the_report_does_not_count(family, cache):
    cached = pipeline.load(loaded.source(family, cache=cache))
    outcome = loaded.rendered(cached, steps=STEPS)
    layers = len(outcome.report.per_layer())
    due = STEPS * layers * (2 if family == "wan" else 1)
    assert len(outcome.report.rows) + outcome.report.absent == due
    assert 0 < outcome.report.absent < due
    assert outcome.report.sparse_rows == outcome.report.rows
    # and the state of one render is not in the next
    assert torch.equal(loaded.rendered(cached, steps=STEPS).latents, outcome.latents)


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_does_the_same_with_the_core_as_without(cache):
    cached = pipeline.load(loaded.source("wan", cache=cache))
    without = loaded.latents_of(cached, steps=STEPS)
    within = loaded.rendered(cached, steps=STEPS, config=DENSE)
    assert (within.latents - without).abs().max() < 1e-5
    assert within.report.absent > 0


@pytest.mark.parametrize("cache", CACHES)
def test_guidance_branches_are_cached_apart(cache):
    outcome = loaded.rendered(pipeline.load(loaded.source("wan", cache=cache)), steps=STEPS)
    calls = Counter((row.branch, row.step, row.layer) for row in outcome.report.rows)
    assert {key[1:] for key in calls if key[0] == "cond"} == {
        key[1:] for key in calls if key[0] == "uncond"
    }


@pytest.mark.parametrize("cache", CACHES)
def test_branches_are_told_apart_where_the_pipeline_names_none(monkeypatch, cache):
    named = pipeline.load(loaded.source("wan", cache=cache))
    expected = loaded.latents_of(named, steps=STEPS)
    unnamed = pipeline.load(loaded.source("wan", cache=cache))
    monkeypatch.setattr(unnamed.transformer, "cache_context", lambda *a, **k: _nothing())
    assert torch.equal(loaded.latents_of(unnamed, steps=STEPS), expected)


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_pab_is_active_by_step_whatever_the_shift_of_the_schedule():
    source = loaded.source("wan", cache="pab")
    skipped = []
    for shift in (1.0, 12.0):  # at 12, timesteps of all but the last steps are above 800
        shifted = pipeline.load(replace(source, flow_shift=shift))
        skipped.append(loaded.rendered(shifted, steps=STEPS).report.absent)
    assert skipped[0] == skipped[1] > 0


def test_without_a_cache_nothing_is_absent(family):
    assert loaded.plain(family).report.absent == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [("none", ("none", 0.0)), ("pab", ("pab", 2.0)), ("first-block:0.1", ("first-block", 0.1))],
)
def test_a_strength_follows_the_name(text, read):
    assert caches.read_cache(text) == read


@pytest.mark.parametrize("text", ["pab:1", "pab:2.5", "taylor:fast", "first-block:0", "mag:-1"])
def test_other_strengths_are_refused(text):
    with pytest.raises(ConfigError, match=f"--cache {text.partition(':')[0]}: the "):
        caches.read_cache(text)


def test_a_cache_that_the_model_cannot_use_is_refused_by_name():
    with pytest.raises(UnknownName, match="no cache is called 'tea'"):
        caches.read_cache("tea")
    wan = Classes(pipeline="WanPipeline", transformer="WanTransformer3DModel")
    with pytest.raises(ConfigError, match="no measured ratios for WanTransformer3DModel") as caught:
        caches.check("mag", wan)
    assert caught.value.hint == "--cache first-block or taylor or pab can"
    other = Classes(pipeline="CosmosTextToWorldPipeline", transformer="CosmosTransformer3DModel")
    with pytest.raises(ConfigError, match="--cache pab cannot serve CosmosTransformer3DModel"):
        caches.check("pab", other)
