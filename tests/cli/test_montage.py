import numpy as np

from rf_cli import montage


def clip(value, frames=7, height=30, width=41):
    return np.full((frames, height, width, 3), value, np.float32)


def test_side_by_side_has_a_row_for_every_arm_but_the_first():
    two = montage.side_by_side(["dense", "a"], [clip(0.5), clip(0.6)], ["", "20 dB"])
    three = montage.side_by_side(["dense", "a", "b"], [clip(0.5)] * 3, ["", "", ""])
    assert len(two) == 7 and two.dtype == np.uint8
    assert three.shape[1] > 2 * two.shape[1] - 4 and three.shape[2] == two.shape[2]
    assert two.shape[1] % 2 == 0 and two.shape[2] % 2 == 0


def test_the_panels_are_reference_arm_and_amplified_difference():
    frames = montage.side_by_side(["dense", "a"], [clip(0.5), clip(0.6)], ["", ""])
    middle = frames[0][frames.shape[1] - 20]
    third = frames.shape[2] // 3
    found = [int(middle[third * i + third // 2, 0]) for i in range(3)]
    assert found == [128, 153, round(0.1 * montage.AMPLIFICATION * 255)]


def test_differences_that_are_too_large_are_white():
    assert montage.difference(clip(0.0), clip(1.0)).min() == 255


def test_a_label_is_drawn_however_long_it_is():
    for label in ("dense", "sparsity 0.8, order raster, dense_layers 0+1, " * 3):
        bar = montage._bar(label, 200)
        assert bar.shape[1] == 200 and bar.max() > 150


def test_the_strip_has_evenly_spaced_frames_of_every_arm():
    strip = montage.strip(["dense", "a"], [clip(0.5, frames=33), clip(0.6, frames=33)])
    short = montage.strip(["dense", "a"], [clip(0.5, frames=2), clip(0.6, frames=2)])
    assert strip.ndim == 3 and strip.shape[1] > 2.9 * short.shape[1]
