"""The ladder of a random system: judged over several draws, mean and worst, and attacked past the luck of one draw."""

import json

import pytest
import torch
from masking_layers import images
from tiny_systems import Changed
from torch import nn

from unfool import LadderResult, LadderSettings, attacks, craft, ladder
from unfool.cli.print_evaluation import print_ladder
from unfool.data.table import Table
from unfool.evaluation.adaptive.rung_result import accuracy_difference, compared, restricted, worst_of
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.over_draws import DRAWS, OverDraws, RecordsOverDraws, over_draws
from unfool.evaluation.results.ladder import LadderSection
from unfool.evaluation.results.rows import Row

COUNT = 40
SETTINGS = LadderSettings(threat="linf:0.001", steps=2, draws=2, targets=1, queries=5)


class Coins(nn.Module):
    """Right about dark images; wrong about bright ones in three of ten draws. No attack within 0.001 changes that."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        wrong = (mean > 0.5) & (torch.rand(len(x), device=x.device) < 0.3)
        margin = (1 + 0.01 * mean) * torch.where(wrong, -1.0, 1.0)
        return torch.stack([margin, -margin, margin - 1, margin - 2], 1)


@pytest.fixture(scope="module")
def table():
    dark, bright = torch.full((COUNT // 2, 3, 4, 4), 0.2), torch.full((COUNT // 2, 3, 4, 4), 0.8)
    return Table.from_tensors(torch.cat([dark, bright]), [0] * COUNT)


@pytest.fixture(scope="module")
def climbed(table):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ladder(Coins(), table, "fgsm", rungs="dk", settings=SETTINGS)


def test_every_rung_is_judged_over_several_draws(climbed, table):
    """Half of the images are right in 0.7 of the draws, so 85 % are on average; all ten draws leave 0.7**10 of them."""
    assert list(climbed.rungs) == ["a", "b", "d", "k"]
    for key, records in (*climbed.records.items(), ("clean", climbed.clean[0]), ("clean", climbed.clean[1])):
        assert isinstance(records, RecordsOverDraws)
        assert records.draws == DRAWS
        assert records.accuracy == pytest.approx(0.85, abs=0.04)
        assert 0.5 <= records.over_draws.worst <= 0.55
        assert sum(records.correct) == records.over_draws.always_right
        judged = over_draws(Coins(), table if key == "clean" else climbed.sets["a" if key == "b" else key])
        assert judged.right.tolist() == records.right


def test_the_worst_case_takes_of_each_image_the_fewest_draws(climbed):
    rungs = [climbed.records[key].right for key in "bdk"]
    assert climbed.worst.right == [min(counts) for counts in zip(*rungs, strict=True)]
    assert climbed.worst.accuracy == pytest.approx(sum(climbed.worst.right) / (DRAWS * COUNT))
    assert climbed.worst.correct == [count == DRAWS for count in climbed.worst.right]


def test_rungs_that_leave_different_draws_right_are_joined_image_by_image():
    worst = worst_of([judged([10, 4, 7, 10]), judged([10, 6, 7, 0]), judged([9, 6, 10, 10])])
    assert worst.right == [9, 4, 7, 0]
    assert worst.accuracy == pytest.approx(0.5)
    assert worst.correct == [False] * 4


def test_draws_are_counted_and_part_of_a_ladder_keeps_them(climbed):
    clean = climbed.clean[1]
    assert clean.model_images == COUNT * (1 + DRAWS)
    part = restricted(clean, clean.ids[-3:])
    assert (part.right, part.draws) == (clean.right[-3:], DRAWS)
    assert part.accuracy == sum(clean.right[-3:]) / (3 * DRAWS)


def test_table_and_results_file_show_mean_and_worst(climbed, capsys):
    worst = climbed.worst.over_draws
    print_ladder(climbed)
    shown = capsys.readouterr().out
    words = " ".join(shown.split())
    table = words.partition("UNDECIDED")[0]
    assert table.count(f" {100 * worst.mean:.1f} ") >= 2
    assert table.count("in every draw") == len(climbed.rungs) + 3
    assert f"on average over {DRAWS} draws; in every draw {100 * worst.worst:.1f} %" in words
    assert "The system draws at random" in words
    saved = json.loads(json.dumps(climbed.to_json()))
    *_, row = saved["rows"]
    *_, rung = saved["ladder"]["rungs"]
    for values in (row, rung):
        assert values["accuracy"] == pytest.approx(worst.mean, abs=1e-6)
        assert values["every_draw"]["accuracy"] == pytest.approx(worst.worst, abs=1e-6)
    assert row["remark"] == worst.sentence()
    assert Row.from_json(row).every_draw == worst.every_draw
    assert LadderSection.from_json(saved["ladder"]).rungs[-1].every_draw == worst.every_draw
    frame = climbed.to_frame()
    assert frame["every_draw"].tolist()[-1] == pytest.approx(worst.worst, abs=1e-6)


def test_a_folder_keeps_what_the_draws_gave(table, tmp_path, monkeypatch):
    def climb():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return ladder(Coins(), table, "fgsm", rungs="d", settings=SETTINGS, folder=tmp_path)

    first = climb()
    monkeypatch.setattr("unfool.evaluation.adaptive.ladder_run.over_draws", None)
    again = climb()
    assert {key: each.right for key, each in again.records.items()} == {
        key: each.right for key, each in first.records.items()
    }
    assert again.worst.accuracy == first.worst.accuracy


class Fickle(nn.Module):
    """Wrong about every brightened image, and in two of five draws about any other."""

    def forward(self, x):
        margin = 200 * (x.mean((1, 2, 3)) - 0.52)
        wrong = (torch.rand(len(x), device=x.device) < 0.4) & (margin < 0)
        # A draw moves the margin and leaves its gradient, which leads to brighter images in every draw.
        margin = margin - 2 * wrong * margin.detach()
        return torch.stack([-margin, margin, margin - 1, margin - 2], 1)


@pytest.fixture(scope="module")
def unlucky():
    table = Table.from_tensors(0.5 + 0.001 * images(24), [0] * 24)
    settings = LadderSettings(threat="linf:0.1", steps=10, draws=4, targets=1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return ladder(Fickle(), table, "apgd-ce:steps=10", rungs="dhk", settings=settings)


@pytest.mark.parametrize("key", ["a", "d", "h", "k"])
def test_luck_of_one_draw_ends_no_attack_on_a_random_system(unlucky, key):
    """An attack that took one wrong draw for a success would leave two in five images as they were."""
    examples, records = unlucky.sets[key], unlucky.records[key]
    assert (examples.distances > 0).all()
    assert (examples.fooled_by_part >= 0).all()
    assert records.accuracy == 0
    assert examples.settings["success_passes"] == DRAWS


def test_lean_confirms_by_itself(table):
    lean = attacks.Lean("linf:0.001", steps=8, queries=10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = ladder(Coins(), table, lean, rungs="d", settings=SETTINGS)
    assert result.sets["a"].attack == "lean-8"
    assert result.sets["a"].settings["remark"].endswith(result.static.over_draws.sentence())


def noisy(inside):
    """A defense that says of no draw where it comes from."""
    return Changed(inside, lambda images: images + 0.05 * torch.randn_like(images))


class Brightness(nn.Module):
    def forward(self, x):
        margin = 50 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], 1)


def test_a_declared_defense_that_draws_is_random_and_its_network_is_not():
    brightness = torch.linspace(0.48, 0.52, 20)
    table = Table.from_tensors(brightness.view(20, 1, 1, 1).expand(20, 3, 4, 4).clone(), (brightness > 0.5).long())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = ladder(noisy(Brightness()), table, "fgsm", rungs="c", settings=SETTINGS)
    assert isinstance(result.worst, RecordsOverDraws)
    assert type(result.static) is Records
    assert result.worst.over_draws.worst < result.worst.accuracy < result.static.accuracy
    assert result.section().rungs[0].every_draw is None
    assert result.section().rungs[-1].every_draw is not None


def test_a_system_that_draws_nothing_has_plain_records():
    table = Table.from_tensors(torch.full((4, 3, 4, 4), 0.2), [0] * 4)
    result = ladder(Brightness(), table, "fgsm", rungs="f", settings=SETTINGS)
    assert {type(records) for records in (*result.records.values(), *result.clean, result.worst)} == {Records}
    assert "every_draw" not in json.dumps(result.to_json())
    assert "every_draw" not in result.to_frame()
    assert "success_passes" not in result.sets["f"].settings


def judged(right, system="2" * 16):
    """Records of 100 images that are right in so many of ten draws; of a deterministic system in 0 or 10."""
    count = len(right)
    records = Records(
        attack="x",
        threat="linf:8/255",
        data="made-up",
        split="test",
        seed=0,
        ids=list(range(count)),
        correct=[each == DRAWS for each in right],
        losses=[0.1] * count,
        distances=[0.01] * count,
        crafted_on=system,
        judged_on=system,
        cpu_seconds=1.0,
        model_images=count,
    )
    if set(right) <= {0, DRAWS}:
        return records
    return RecordsOverDraws.of(records, OverDraws(ids=torch.arange(count), right=torch.tensor(right), draws=DRAWS))


def some(every, half, never):
    return [DRAWS] * every + [DRAWS // 2] * half + [0] * never


@pytest.mark.parametrize(
    ("every", "half", "verdict"),
    [(65, 10, "helps"), (52, 40, "undecided"), (30, 40, "undecided"), (20, 28, "undecided"), (20, 10, "fails")],
)
def test_a_verdict_holds_for_the_images_right_in_every_draw_and_in_any(climbed, every, half, verdict):
    """The network keeps 50 of 100 images. A mean of 72 or 34 decides nothing where some draws leave too few or many."""
    worst, static = judged(some(every, half, 100 - every - half)), judged(some(50, 0, 50), "1" * 16)
    comparison = compared(worst, static)
    assert comparison.difference == pytest.approx((every + half / 2 - 50) / 100)
    assert comparison.low < (every - 50) / 100
    assert comparison.high > (every + half - 50) / 100
    assert LadderResult(
        model="", defense="", rungs={}, clean=climbed.clean, worst=worst, comparison=comparison, images_per_prediction=1
    ).verdict == verdict  # fmt: skip
    assert accuracy_difference(worst, static) == (comparison.difference, comparison.low, comparison.high)


def test_the_yardstick_of_a_random_network_is_as_wide():
    worst, static = judged(some(50, 0, 50)), judged(some(30, 20, 50), "1" * 16)
    comparison = compared(worst, static)
    assert comparison.difference == pytest.approx(0.1)
    assert comparison.low < 0 < 0.2 < comparison.high
    assert comparison.p_value == 1.0


def test_records_over_draws_are_saved_and_read(climbed, tmp_path):
    climbed.worst.save(tmp_path / "worst.json")
    assert RecordsOverDraws.load(tmp_path / "worst.json").over_draws.mean == climbed.worst.accuracy


def test_examples_of_a_lucky_draw_show_what_the_ladder_avoids():
    """The same attack without confirmation leaves images where they were, fooled by luck."""
    table = Table.from_tensors(0.5 + 0.001 * images(24), [0] * 24)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        examples = craft(Fickle(), table, "apgd-ce:steps=10", threat="linf:0.1")
    assert over_draws(Fickle(), examples).mean > 0.1
