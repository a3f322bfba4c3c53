"""Tiles: cut where they were asked for, shown in the order of their places, normalised by themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfool.core.streams import Streams
from unfool.tasks.tiles import FLAT, LEVEL, SPREAD, cut, laid_out, normalised, one_by_one, together

IDS = torch.arange(3)


def make_tiles(grid=2, side=4):
    """Images (3, 2, 11, 13), the rows and columns of their tiles, and the tiles."""
    images = Streams(1).uniform(IDS, (2, 11, 13)).double()
    rows, columns = (
        Streams(2).named(str(most)).integers(IDS, most, (grid, grid, side)) for most in (images.shape[2], 13)
    )
    return images, rows, columns, cut(images, rows, columns)


@pytest.mark.parametrize("grid", [2, 3])
def test_every_tile_shows_its_rows_and_columns(grid):
    images, rows, columns, tiles = make_tiles(grid)
    shown = one_by_one(tiles)
    assert shown.shape == (grid**2 * 3, 2, 4, 4)
    picture = together(tiles, (grid * 4, grid * 4))
    for image in range(3):
        assert torch.equal(laid_out(shown.unflatten(0, (grid**2, 3))[:, image]), picture[image])
        for down in range(grid):
            for across in range(grid):
                there = np.ix_(rows[image, down, across].numpy(), columns[image, down, across].numpy())
                expected = np.stack([channel[there] for channel in images[image].numpy()])
                assert np.array_equal(shown[(down * grid + across) * 3 + image], expected)
                place = np.s_[:, down * 4 : down * 4 + 4, across * 4 : across * 4 + 4]
                assert np.array_equal(picture[image][place], expected)


@given(st.floats(0.02, 1.0), st.floats(0.0, 1.0), st.integers(0, 1000))
def test_brightness_and_contrast_of_a_tile_do_not_show(contrast, level, seed):
    tile = Streams(seed).uniform(IDS, (2, 6, 6)).double()
    changed = contrast * tile + level * (1 - contrast)
    deviation = contrast * tile.std((2, 3), correction=0)
    # The floor of a flat tile is what remains of a weak contrast.
    atol = float((0.5 * (FLAT / deviation) ** 2).max())
    torch.testing.assert_close(normalised(changed), normalised(tile), rtol=0, atol=atol)


def test_each_channel_has_the_level_and_the_spread_unless_it_is_cut_off():
    tiles = Streams(3).uniform(IDS, (2, 6, 6)).double().numpy() * 0.6 + 0.2
    found = normalised(torch.from_numpy(tiles)).numpy()
    for tile, shown in zip(tiles.reshape(-1, 36), found.reshape(-1, 36), strict=True):
        deviation = np.sqrt(tile.var() + FLAT**2)
        np.testing.assert_allclose(shown, LEVEL + SPREAD * (tile - tile.mean()) / deviation, atol=1e-12)
    spiked = torch.zeros(1, 1, 6, 6).double()
    spiked[0, 0, 2, 3] = 1.0
    assert float(normalised(spiked)[0, 0, 2, 3]) == 1.0
    assert 0.0 < float(normalised(spiked)[0, 0, 0, 0]) < LEVEL


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_tile_is_grey_and_has_a_finite_gradient(value):
    tile = torch.full((1, 3, 5, 5), value, dtype=torch.float64, requires_grad=True)
    shown = normalised(tile)
    assert torch.allclose(shown, torch.full_like(shown, LEVEL), atol=1e-9)
    weights = Streams(4).uniform(torch.zeros(1, dtype=torch.int64), (3, 5, 5)).double()
    (gradient,) = torch.autograd.grad((shown * weights).sum(), tile)
    assert torch.isfinite(gradient).all()
    # A grey level, the smallest step of a pixel, makes one deviation at most.
    assert float((shown.detach() + gradient.abs() / 255).max()) <= LEVEL + SPREAD


def test_the_normalisation_passes_gradcheck():
    tiles = (Streams(5).uniform(IDS, (2, 4, 4)).double() * 0.5 + 0.2).requires_grad_()
    assert torch.autograd.gradcheck(normalised, (tiles,))
