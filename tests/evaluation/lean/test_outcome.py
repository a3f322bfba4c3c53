"""What a lean attack says of what it left out."""

import itertools

import pytest

from unfool.evaluation.lean.outcome import Outcome, Step, most_missed


@pytest.mark.parametrize(("standing", "sampled"), [(5, 2), (8, 3), (9, 9), (7, 0), (10, 5), (1, 1), (12, 11)])
def test_the_bound_is_the_largest_number_that_a_sample_misses_often_enough(standing, sampled):
    samples = list(itertools.combinations(range(standing), sampled))

    def missed(count):
        """The share of all samples without any of the first ``count`` images."""
        return sum(all(row >= count for row in sample) for sample in samples) / len(samples)

    allowed = [count for count in range(standing - sampled + 1) if missed(count) >= 0.05 - 1e-12]
    assert most_missed(standing, sampled) == max(allowed)


def test_more_samples_never_loosen_the_bound():
    bounds = [most_missed(60, sampled) for sampled in range(61)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 60
    assert bounds[60] == 0
    assert most_missed(30_000, 1_500) < 0.003 * 30_000


def test_a_sentence_says_what_was_skipped_and_what_it_may_have_cost():
    sentence = Outcome(images=200, standing=100, sampled=10).sentence()
    assert "attacked 10 of the 100 images that stood" in sentence
    assert "at most 24 (with 95% confidence), which is 12.0 points" in sentence


def test_a_sentence_names_the_reasons_of_an_escalation():
    step = Step(attack="AutoAttack", attacked=100, fell=30, reasons=("the model is random", "noise-wins on 4 images"))
    outcome = Outcome(images=200, standing=100, fell=30, steps=(step,), complete=True)
    assert outcome.skipped == outcome.missed_at_most == 0
    assert outcome.sentence() == (
        "escalated to AutoAttack (it fooled 30 of the 100 images that stood), because the model is random; "
        "noise-wins on 4 images"
    )


def test_nothing_is_skipped_where_all_were_attacked():
    for outcome in (
        Outcome(images=9, standing=0),
        Outcome(images=9, standing=3, sampled=3),
        Outcome(images=9, standing=5, sampled=2, fell_in_sample=1, fell=2),
    ):
        assert outcome.skipped == 0
        assert "at most" not in outcome.sentence()
    assert "attacked all 5, of which they fooled 2" in outcome.sentence()


def test_what_the_checks_fooled_is_said_and_stood_no_longer():
    outcome = Outcome(images=20, standing=9, fell_to_checks=1, sampled=8, fell=1)
    assert outcome.skipped == 0
    assert outcome.sentence() == (
        "the checks fooled 1 of the 9 images that stood; FAB-T and Square attacked all 8 images that stood, and fooled "
        "none"
    )
    few = Outcome(images=20, standing=9, fell_to_checks=1, sampled=8, fell_in_sample=2, fell=3)
    assert few.sentence().endswith("FAB-T and Square attacked all 8 images that stood, and fooled 2")


def test_each_step_has_its_phrase_and_the_bound_is_of_what_stands_after_them():
    step = Step(attack="the network inside", attacked=100, fell=20, reasons=("it wraps one",))
    outcome = Outcome(images=200, standing=100, sampled=8, fell=20, steps=(step,))
    assert (outcome.skipped, outcome.missed_at_most) == (72, most_missed(80, 8))
    first, second = outcome.sentence().split("; FAB-T")
    assert first == (
        "escalated to the network inside (it fooled 20 of the 100 images that stood), because it wraps one"
    )
    assert second.startswith(" and Square attacked 8 of the 80 images that stood")
