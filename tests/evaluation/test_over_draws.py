"""A random model is judged over several draws: on average, and in every draw."""

import pytest
import torch
from torch import nn

from unfool import EvaluationSettings, evaluate
from unfool.cli.print_evaluation import print_evaluation
from unfool.data.table import Table
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.over_draws import OverDraws, RecordsOverDraws, least_over_draws, over_draws
from unfool.evaluation.statistics.comparison import concatenate, worst_case


class Coins(nn.Module):
    """Says 0; of images brighter than a half, 1 with probability 0.3."""

    def forward(self, x):
        bright = x.flatten(1).mean(1) > 0.5
        other = (bright & (torch.rand(len(x)) < 0.3)).float() + 0 * x.flatten(1).mean(1)
        return torch.stack([0.5 - other, other - 0.5], 1)


def test_mean_and_worst_are_counted_over_fresh_draws():
    images = torch.cat([torch.full((20, 1, 4, 4), 0.2), torch.full((20, 1, 4, 4), 0.8)])
    table = Table.from_tensors(images, {"label": torch.zeros(40, dtype=torch.int64)})
    state = torch.random.get_rng_state()
    judged = over_draws(Coins(), table, draws=20)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (judged.right[:20] == 20).all()
    assert judged.right[20:].double().mean() / 20 == pytest.approx(0.7, abs=0.08)
    assert judged.mean == pytest.approx(0.85, abs=0.04)
    assert 0.5 <= judged.worst < 0.55
    assert torch.equal(judged.right, over_draws(Coins(), table, draws=20).right)
    assert not torch.equal(judged.right, over_draws(Coins(), table, draws=20, seed=1).right)


def test_a_sentence_gives_both_with_intervals():
    judged = OverDraws(ids=torch.arange(4), right=torch.tensor([10, 10, 5, 0]), draws=10)
    assert judged.sentence() == (
        "over 10 draws of the model 62.5 % [15.6, 100.0] are right on average, and 50.0 % [15.0, 85.0] in every draw"
    )


@pytest.mark.parametrize(("draws_right", "low", "high"), [(0, 0.0, 0.0566), (10, 0.9434, 1.0), (5, 0.381, 0.619)])
def test_images_that_agree_leave_the_interval_of_as_many_images(draws_right, low, high):
    judged = OverDraws(ids=torch.arange(64), right=torch.full((64,), draws_right), draws=10)
    assert judged.mean_interval() == pytest.approx((low, high), abs=1e-3)


def test_the_mean_is_no_surer_than_what_bounds_it():
    """The images right in every draw are at most as many as those right on average, those right in any as few."""
    rare, usual = torch.zeros(64, dtype=torch.int64), torch.full((64,), 10)
    rare[0], usual[0] = 1, 9
    low, high = OverDraws(ids=torch.arange(64), right=rare, draws=10).mean_interval()
    assert (low, high) == pytest.approx((0.0, 0.0566), abs=1e-3)
    low, high = OverDraws(ids=torch.arange(64), right=usual, draws=10).mean_interval()
    assert (low, high) == pytest.approx((0.9434, 1.0), abs=1e-3)


def test_rows_of_a_random_model_say_how_it_does_over_draws():
    images = torch.linspace(0.3, 0.7, 40).view(40, 1, 1, 1).expand(40, 1, 4, 4).clone()
    table = Table.from_tensors(images, {"label": torch.zeros(40, dtype=torch.int64)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        evaluation = evaluate(Coins(), table, "pgd-2", settings=EvaluationSettings(threat="linf:0.01"))
    for row in evaluation.rows:
        assert row.remark.startswith("over 10 draws of the model ")


@pytest.fixture(scope="module")
def evaluated():
    """Half of the images are right in 0.7 of the draws, whatever an attack within 0.001 does."""
    images = torch.cat([torch.full((40, 1, 4, 4), 0.2), torch.full((40, 1, 4, 4), 0.8)])
    table = Table.from_tensors(images, {"label": torch.zeros(80, dtype=torch.int64)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = EvaluationSettings(threat="linf:0.001")
        return evaluate(Coins(), table, ["pgd-2", "fgsm"], settings=settings)


def test_rows_of_a_random_model_hold_mean_and_worst(evaluated):
    clean, *attacked, worst = evaluated.rows
    assert [row.attack for row in evaluated.rows] == ["none", "pgd-2", "fgsm", "worst-case"]
    for row in (clean, *attacked):
        assert row.accuracy == pytest.approx(0.85, abs=0.04)
        assert row.low < row.accuracy < row.high
    doubts = " ".join(evaluated.doubts)
    assert "the model is random, and the accuracy is the mean over several draws" in doubts
    assert "own draw" not in doubts
    for row in evaluated.rows:
        assert 0.5 <= row.every_draw.accuracy < 0.55
        assert row.every_draw.n == row.n == 80
    # The two attacks leave the same images, of which the same draws are right.
    assert worst.accuracy == min(row.accuracy for row in attacked)
    assert worst.accuracy > 0.5 + 0.5 * 0.7**2 + 0.04, "not what one draw for each attack leaves"


def test_the_last_line_on_a_random_model_gives_mean_and_worst(evaluated, capsys):
    print_evaluation(evaluated)
    shown, row = " ".join(capsys.readouterr().out.split()), evaluated.rows[-1]
    every = row.every_draw
    share = f"{100 * row.accuracy:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert (
        f"Robust accuracy {share} on average over draws, {100 * every.accuracy:.1f} % "
        f"[{100 * every.low:.1f}, {100 * every.high:.1f}] in every draw, on 80 images"
    ) in shown


def test_the_worst_case_of_several_attacks_takes_of_each_image_the_fewest_draws():
    ids = torch.arange(3)
    first = OverDraws(ids=ids, right=torch.tensor([10, 4, 7]), draws=10)
    second = OverDraws(ids=ids, right=torch.tensor([9, 6, 7]), draws=10)
    assert least_over_draws([first, second]).right.tolist() == [9, 4, 7]


def drawn(ids, right, **changed):
    """Records of a random model over ten draws."""
    words = {"attack": "fgsm", "threat": "linf:0.1", "data": "digits", "split": "test", "seed": 0, "settings": {}}
    systems = {"crafted_on": "a", "judged_on": "a"}
    blank = {"losses": [0.0] * len(ids), "distances": [0.1] * len(ids), "cpu_seconds": 0.0, "model_images": 0}
    records = Records(**(words | changed), **systems, **blank, ids=ids, correct=[count > 5 for count in right])
    return RecordsOverDraws.of(records, OverDraws(ids=torch.tensor(ids), right=torch.tensor(right), draws=10))


def test_records_over_draws_are_read_as_they_were_written(tmp_path):
    records = drawn([1, 2, 3], [10, 4, 0])
    records.save(tmp_path / "records.json")
    read = Records.load(tmp_path / "records.json")
    assert read == records
    assert (read.accuracy, read.correct) == (pytest.approx(14 / 30), [True, False, False])


def test_joined_or_in_a_worst_case_they_count_as_right_in_every_draw():
    joined = concatenate([drawn([1, 2], [10, 4]), drawn([3, 4], [10, 10])])
    assert (joined.accuracy, joined.correct) == (0.75, [True, False, True, True])
    worst = worst_case([drawn([1, 2], [10, 4]), drawn([1, 2], [9, 4], attack="pgd-2")])
    assert (worst.accuracy, worst.correct) == (0.0, [False, False])
