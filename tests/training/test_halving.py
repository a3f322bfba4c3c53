"""Successive halving: against the paper's algorithm, in any order in which scores come in."""

import random

import pytest

from unfool.training.sweeping.halving import levels, places_on


def successive_halving(scores, rungs, factor):
    """Li et al., MLSys 2020, Algorithm 1: rung by rung the best ⌊n / factor⌋, at least one; how far each setting gets.

    The paper's loop, with whole rungs; of equal scores the first setting is the better.
    """
    level = dict.fromkeys(scores, 0)
    alive = list(scores)
    for rung in range(rungs):
        ranked = sorted(alive, key=lambda setting: (-scores[setting][rung], setting))
        alive = ranked[: max(1, len(alive) // factor)]
        for setting in alive:
            level[setting] = rung + 1
    return level


def asha(scores, order, rungs, factor):
    """Algorithm 2 with one worker: promote whoever is among the best of a rung so far, else begin the next setting.

    The settings that are promoted from each rung.
    """
    recorded = [{} for _ in range(rungs)]
    promoted = [set() for _ in range(rungs)]
    waiting = list(order)

    def job():
        for rung in reversed(range(rungs)):
            best = sorted(recorded[rung], key=lambda setting: -recorded[rung][setting])[: len(recorded[rung]) // factor]
            for setting in best:
                if setting not in promoted[rung]:
                    promoted[rung].add(setting)
                    return setting, rung + 1
        return (waiting.pop(0), 0) if waiting else None

    while (work := job()) is not None:
        setting, rung = work
        if rung < rungs:
            recorded[rung][setting] = scores[setting][rung]
    return promoted


def cases():
    draw = random.Random(0)
    for count, rungs, factor in ((9, 2, 3), (27, 3, 3), (8, 3, 2), (5, 2, 2), (3, 1, 4), (10, 2, 3), (1, 1, 3)):
        for _ in range(5):
            yield {n: [draw.choice((draw.random(), 0.5)) for _ in range(rungs)] for n in range(count)}, rungs, factor


@pytest.mark.parametrize(("scores", "rungs", "factor"), list(cases()), ids=lambda value: str(value)[:1])
def test_every_order_trains_what_successive_halving_trains(scores, rungs, factor):
    """And on the way nothing goes on that the finished rung would not let go on."""
    truth = successive_halving(scores, rungs, factor)
    assert sorted(truth.values()) == sorted(levels(scores, rungs, factor).values())
    draw = random.Random(1)
    for _ in range(5):
        known = {setting: [] for setting in scores}
        while True:
            level = levels(known, rungs, factor)
            assert all(level[setting] <= truth[setting] for setting in scores)
            open_ones = [s for s in scores if len(known[s]) <= level[s] and len(known[s]) < rungs]
            if not open_ones:
                break
            chosen = draw.choice(open_ones)
            known[chosen].append(scores[chosen][len(known[chosen])])
        assert level == truth == levels(scores, rungs, factor)


def test_the_asynchronous_rule_of_the_paper_promotes_no_fewer():
    """It promotes the best of those that came first, which later ones may show to be none of the best."""
    for scores, rungs, factor in cases():
        ours = levels(scores, rungs, factor)
        first = {setting for setting, level in ours.items() if level > 0}
        theirs = asha(scores, list(scores), rungs, factor)[0]
        if len(scores) >= factor and len({values[0] for values in scores.values()}) == len(scores):
            assert first <= theirs


def test_a_setting_goes_on_before_the_rung_is_full():
    scores = {"a": [0.9], "b": [0.8], "c": [0.1], "d": [0.2], "e": [], "f": []}
    assert places_on(1, 6, 2) == [6, 3]
    assert levels(scores, 1, 2) == {"a": 1, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0}
    scores["e"] = [0.3]
    assert [name for name, level in levels(scores, 1, 2).items() if level] == ["a", "b"]


def test_a_setting_trained_further_by_an_earlier_sweep_is_no_reason_to_let_it_go_on():
    scores = {"a": [0.1, 0.9], "b": [0.5, 0.2], "c": [0.6], "d": [0.7]}
    assert levels(scores, 2, 2) == {"a": 0, "b": 0, "c": 1, "d": 1}
