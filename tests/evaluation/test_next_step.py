"""What an evaluation suggests, by its rows and its doubts."""

import pytest

from unfool.evaluation.next_step import NextStep, step_after
from unfool.evaluation.results.rows import Row


def row(attack, accuracy, protocol="white-box", threat="linf:8/255", **more):
    figures = {"accuracy": accuracy, "low": 0.0, "high": 1.0, "n": 100}
    return Row(
        model="net", data="cifar10", split="test", attack=attack, protocol=protocol, threat=threat, **figures, **more
    )


CLEAN = row("none", 0.9, "clean")


@pytest.mark.parametrize(
    ("rows", "more", "action"),
    [
        ([row("pgd-20", 0.44)], {}, "harden"),
        ([row("pgd-20", 0.46)], {}, None),
        ([row("pgd-20", 0.6), row("apgd-ce", 0.2)], {}, "harden"),
        ([row("pgd-20", 0.1, "transfer")], {}, "harden"),
        ([row("pgd-20", 0.8, "transfer")], {}, "autoattack"),
        ([row("autoattack", 0.8, "transfer")], {"doubted": ["transfer-wins"]}, "autoattack"),
        ([row("pgd-20", 0.8), row("autoattack", 0.8, "transfer")], {}, None),
        ([], {}, "autoattack"),
        ([], {"defended": True}, "ladder"),
        ([], {"black_box": True}, None),
        ([], {"doubted": ["chance"]}, None),
        ([row("square-100", 0.1, "score-based")], {}, None),
        ([row("pgd-20", 0.1, "transfer", judged_on="abc~")], {}, None),
        ([row("pgd-20", 0.1)], {"doubted": ["chance"]}, None),
        ([row("pgd-20", 0.1)], {"doubted": ["black-box-wins"]}, "autoattack"),
        ([row("pgd-20", 0.1)], {"doubted": ["more-steps-win"]}, "autoattack"),
        ([row("pgd-20", 0.1), row("autoattack", 0.1)], {"doubted": ["more-steps-win"]}, "harden"),
        ([row("pgd-20", 0.8)], {"doubted": ["black-box-wins"]}, "autoattack"),
        ([row("autoattack", 0.8)], {"doubted": ["black-box-wins"]}, "binarization-test"),
        ([row("autoattack", 0.8)], {"doubted": ["black-box-wins"], "tested": True}, None),
        ([row("pgd-20", 0.8)], {"defended": True}, "ladder"),
        ([row("pgd-20", 0.1)], {"defended": True}, "harden"),
        ([row("pgd-20", 0.1)], {"defended": True, "doubted": ["black-box-wins"]}, "ladder"),
        ([row("pgd-20", 0.8)], {"doubted": ["dynamic-inference"]}, "ladder"),
    ],
)
def test_the_step_follows_from_rows_and_doubts(rows, more, action):
    step = step_after([CLEAN, *rows], **more)
    assert (None if step is None else step.action) == action
    assert step is None or step.threat == "linf:8/255"


@pytest.mark.parametrize("accuracy", [0.1, 0.8])
@pytest.mark.parametrize(
    ("doubted", "answer", "command"),
    [
        (["randomised-output", "more-restarts-win"], row("autoattack", 0.6, settings={"version": "rand"}), "rand"),
        (["blocked-gradients"], row("lean", 0.6), "lean"),
        (["wrong-gradients", "black-box-wins"], row("lean", 0.6), "lean"),
    ],
)
def test_a_doubted_model_is_attacked_as_its_flag_says_and_weak_or_not(doubted, answer, command, accuracy):
    standard = [CLEAN, row("pgd-20", accuracy), row("autoattack", accuracy)]
    step = step_after(standard, doubted=doubted)
    assert step.attacks == ("autoattack:version=rand" if command == "rand" else command,)
    assert f'"{step.attacks[0]}", settings=' in str(step)
    after = step_after([*standard, answer], doubted=doubted)
    assert (after.action if after else None) == ("harden" if accuracy < 0.45 else None)


def test_the_step_is_for_the_threat_of_the_evaluation_where_a_curve_goes_on():
    rows = [CLEAN, row("pgd-20", 0.4), row("pgd-20", 0.0, threat="linf:32/255")]
    assert step_after(rows) == NextStep(action="harden", threat="linf:8/255")
    assert step_after(rows[1:]) is None  # without clean images nothing can be compared


def test_in_l0_what_is_doubted_is_attacked_by_what_works_there():
    threat, doubted = "l0:10", ["black-box-wins"]
    clean, pgd, sigma_zero, square = (
        row(name, 0.8, "clean" if name == "none" else "white-box", threat)
        for name in ("none", "pgd-20", "sigma-zero", "square-500")
    )
    step = step_after([clean, pgd], doubted=doubted)
    assert step == step_after([clean, pgd, sigma_zero], doubted=doubted)
    assert step == NextStep(action="sparse-attacks", threat=threat)
    assert str(step).startswith("unfool.evaluate(model, test_images, ['sigma-zero', 'square'], settings=")
    assert step_after([clean, sigma_zero, square], doubted=doubted) is None


def test_as_text_a_step_is_the_call_to_make():
    assert str(NextStep(action="harden", threat="l2:0.5")).endswith('unfool.HardenSettings(threat="l2:0.5"))')
