import math
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from rainfusion_core import metrics
from rainfusion_core.errors import RainfusionError


def clip(frames=4, height=24, width=32, seed=0):
    random = np.random.default_rng(seed)
    return random.random((frames, height, width, 3), dtype=np.float32)


def tensor(frames):
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def test_psnr_of_a_known_error_is_the_one_computed_by_hand():
    grey = np.full((2, 8, 8, 3), 0.5, np.float32)
    assert metrics.psnr(grey, grey + 0.1) == pytest.approx(20, abs=1e-4)


def test_psnr_of_equal_clips_is_infinite():
    assert metrics.psnr(clip(), clip()) == math.inf
    assert metrics.clip_metrics(clip(), clip()).psnr == math.inf


def test_psnr_is_that_of_torchmetrics_for_the_clip_and_for_every_frame():
    a, b = clip(seed=1), clip(seed=2)
    found = metrics.clip_metrics(a, b)
    whole = peak_signal_noise_ratio(tensor(b), tensor(a), data_range=1.0)
    assert found.psnr == pytest.approx(float(whole), abs=1e-4)
    first = peak_signal_noise_ratio(tensor(b[:1]), tensor(a[:1]), data_range=1.0)
    assert found.psnr_frames[0] == pytest.approx(float(first), abs=1e-4)


def test_ssim_is_that_of_torchmetrics_for_the_clip_and_for_every_frame():
    a, b = clip(seed=1), clip(seed=2)
    found = metrics.clip_metrics(a, b)
    assert found.ssim == pytest.approx(
        float(structural_similarity_index_measure(tensor(b), tensor(a), data_range=1.0)), abs=1e-5
    )
    assert len(found.ssim_frames) == 4 and np.mean(found.ssim_frames) == pytest.approx(found.ssim)
    assert metrics.clip_metrics(a, a).ssim == pytest.approx(1)


def test_flicker_counts_only_pixels_that_stand_still_in_the_reference():
    still = np.full((3, 4, 4, 3), 0.5, np.float32)
    still[:, 0, 0] = np.array([0, 1, 0], np.float32)[:, None]  # this pixel moves
    trembling = still.copy()
    trembling[1, 1:] += 0.2  # 12 of 15 static pixels, in both differences
    assert metrics.flicker(still, still) == 0
    assert metrics.flicker(trembling, still) == pytest.approx(0.2 * 12 / 15, rel=1e-5)


def test_flicker_is_unknown_where_everything_moves():
    moving = np.linspace(0, 1, 4, dtype=np.float32)[:, None, None, None]
    moving = np.broadcast_to(moving, (4, 8, 8, 3))
    assert metrics.flicker(moving, moving) is None


def test_cosine_of_latents_is_one_for_equal_and_zero_for_orthogonal_ones():
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 2.0]])
    assert metrics.cosine(a, 5 * a) == pytest.approx(1)
    assert metrics.cosine(a, b) == 0
    found = metrics.clip_metrics(clip(), clip(), latents=(a, -a))
    assert found.latent_cosine == pytest.approx(-1)


def test_latent_cosine_is_unknown_without_latents():
    assert metrics.clip_metrics(clip(), clip()).latent_cosine is None


def test_lpips_is_given_values_from_minus_one_to_one():
    seen = []

    def network(a, b):
        seen.extend([a, b])
        return 0.25

    found = metrics.clip_metrics(clip(seed=1), clip(seed=2), perceptual=network)
    assert found.lpips == 0.25 and found.lpips_frames == (0.25,) * 4
    assert all(x.shape == (1, 3, 24, 32) for x in seen)
    assert -1 <= min(float(x.min()) for x in seen) < -0.9
    assert 0.9 < max(float(x.max()) for x in seen) <= 1


def test_lpips_without_torchvision_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RainfusionError) as caught:
        metrics.lpips_network()
    assert str(caught.value) == "LPIPS needs torchvision, which is not installed"
    assert caught.value.hint == "install it with: pip install 'rainfusion[metrics]'"


@pytest.fixture
def network(monkeypatch):
    """What `lpips_network` builds, over an AlexNet with random weights instead of downloaded ones."""
    from torch import nn

    def features(name, pretrained):
        assert (name, pretrained) == ("alexnet", True)
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", features)
    monkeypatch.setattr("torchmetrics.image.lpip._TORCHVISION_AVAILABLE", True)
    return metrics.lpips_network()


def test_lpips_is_the_distance_of_each_frame_and_remembers_none(network):
    a, b = np.random.default_rng(0).random((2, 3, 64, 80, 3), dtype=np.float32)
    values = metrics.lpips(a, b, network)
    assert len(values) == 3 and all(value > 0 for value in values)
    assert metrics.lpips(a, a, network) == (0, 0, 0)
    # alone, or after others: the same
    assert metrics.lpips(a[1:2], b[1:2], network) == pytest.approx(values[1:2])
    assert metrics.clip_metrics(a, b, perceptual=network).lpips == pytest.approx(np.mean(values))


def test_lpips_grows_with_what_is_added(network):
    a, noise = np.random.default_rng(0).random((2, 1, 64, 64, 3), dtype=np.float32)
    distances = [metrics.lpips(a, (1 - w) * a + w * noise, network)[0] for w in (0.1, 0.3, 0.9)]
    assert distances == sorted(distances) and distances[0] < distances[-1] / 2


def test_weights_that_cannot_be_fetched_are_one_line(network, monkeypatch):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torchmetrics.functional.image.lpips._get_tv_model_features", unreachable)
    with pytest.raises(RainfusionError) as caught:
        metrics.lpips_network()
    assert str(caught.value).startswith("the AlexNet weights of LPIPS cannot be fetched: ")
    assert (
        caught.value.hint == "leave --lpips out, or run once with a network; torchvision keeps them"
    )
