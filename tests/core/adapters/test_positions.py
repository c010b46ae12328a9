import torch

from rainfusion_core.adapters.positions import grids_at
from rainfusion_core.layout import LatentGrid


def raster(time, rows, columns):
    """(tokens, 3) positions of a grid with these coordinates."""
    return torch.cartesian_prod(*(torch.tensor(x) for x in (time, rows, columns)))


def read(positions, images):
    return grids_at(positions, lambda given: given, images=images)


def test_a_video_is_one_grid_in_whatever_unit_it_is_measured():
    positions = raster([0.0, 0.04, 0.375], [0.0, 32.0], [16.0, 48.0, 80.0, 112.0])
    assert read(positions, images=False) == (LatentGrid(3, 2, 4),)


def test_frames_before_and_behind_a_video_are_grids_of_their_own():
    video, early = raster([0, 1, 2], [0, 1], [0, 1]), raster([1], [0, 1], [0, 1])
    whole, frame = LatentGrid(3, 2, 2), LatentGrid(1, 2, 2)
    assert read(torch.cat([early, video]), images=False) == (frame, whole)
    assert read(torch.cat([video, early, early]), images=False) == (whole, frame, frame)


def test_images_are_told_apart_by_number_and_by_where_rows_begin_again():
    first, second = raster([0], [0, 1, 2], [0, 1]), raster([10], [0, 1], [0, 1, 2, 3])
    grids = LatentGrid(1, 3, 2), LatentGrid(1, 2, 4)
    assert read(torch.cat([first, second]), images=True) == grids
    assert read(torch.cat([first, second * torch.tensor([0, 1, 1])]), images=True) == grids


def test_tokens_out_of_order_are_no_grid():
    positions = raster([0], [0, 1, 2], [0, 1])
    assert read(positions[[0, 2, 1, 3, 4, 5]], images=True) == ()
    assert read(positions[:-1], images=True) == ()
    assert read(positions.flip(0), images=False) == ()


def test_half_precision_positions_are_read():
    assert read(raster([0.0], [0.0, 1.0], [0.0, 1.0]).bfloat16(), images=True)


def test_one_tensor_is_read_once():
    positions, views = raster([0], [0, 1], [0, 1]), []

    def view(given):
        views.append(given)
        return given

    assert grids_at(positions, view, images=True) == grids_at(positions, view, images=True)
    assert len(views) == 1
