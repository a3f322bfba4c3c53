"""What a jigsaw answers, tile by tile, and whether it is asked on images whose JPEG blocks have moved."""

import torch
from test_pretext import make_bound, make_table

from unfool.evaluation.pretext.accuracy import pretext_quality
from unfool.evaluation.pretext.puzzles import OFF_THE_GRID, ON_THE_GRID, grid_qualities, solved_puzzles, task_qualities

TILES = {"form": "context-free", "grid": 2, "count": 4, "gap": 0.0, "jitter": 0.0, "hidden": 8}


def test_tiles_are_laid_out_as_shown_as_predicted_and_as_they_belong():
    network, task = make_bound("jigsaw", **TILES)
    images = make_table(6, side=32).batch().images
    puzzles = solved_puzzles(network, task, images)
    assert network.training
    assert len(puzzles) == 6
    network.eval(), task.eval()
    views = task.views(make_table(6, side=32).batch(), None)
    with torch.no_grad():
        answers = task.head(network.features(views.images, views.stage)).argmax(1)
    solved = answers == views.targets
    assert [puzzle.right == puzzle.count == 4 for puzzle in puzzles] == solved.tolist()
    for row, puzzle in enumerate(puzzles):
        assert torch.equal(puzzle.predicted, puzzle.solved) == bool(solved[row])
        # the canonical order lies each tile where it was cut, normalised by itself
        corner = puzzle.solved[:, :16, :16]
        image = images[row, :, :16, :16]
        assert torch.corrcoef(torch.stack([corner[0].flatten(), image[0].flatten()]))[0, 1] > 0.95
        assert sorted(puzzle.shuffled.flatten().tolist()) == sorted(puzzle.solved.flatten().tolist())


def test_other_tasks_have_no_tiles():
    assert solved_puzzles(*make_bound("jigsaw", grid=2, count=4), make_table(2).batch().images) == []
    assert solved_puzzles(*make_bound("rotation"), make_table(2).batch().images) == []


def test_a_jigsaw_is_asked_off_the_grid_and_on_it_again():
    network, task = make_bound("jigsaw", **TILES)
    assert grid_qualities(network, task, make_table(20, side=30)) == {}  # moved by a block, no tile stays whole
    wide = make_table(20, side=32)
    qualities = grid_qualities(network, task, wide)
    off, on = qualities[OFF_THE_GRID], qualities[ON_THE_GRID]
    assert off == pretext_quality(network, task, wide, change=lambda images: images.roll((8, 8), (2, 3)))
    assert on == pretext_quality(network, task, wide, change=lambda images: images.roll((16, 16), (2, 3)))
    assert task_qualities(network, {"tiles": task}, wide) == {
        "tiles": pretext_quality(network, task, wide),
        "tiles moved by half a block": off,
        "tiles moved by a block": on,
    }
    assert grid_qualities(*make_bound("jigsaw", **TILES, augmentation="resized-crop"), wide) == {}
    assert grid_qualities(*make_bound("rotation"), wide) == {}
