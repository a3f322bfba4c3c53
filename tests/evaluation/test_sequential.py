"""Sequential evaluation: evidence against its integral, error rates computed exactly, and images taken in random order.

Error rates are exact, not simulated: the number correct so far is a Markov chain, and its distribution among runs that
have not stopped is carried from image to image.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binomtest
from tiny_systems import make_network, table_of

from unfool.attacks import make_attack
from unfool.core.errors import DataError, SpecError
from unfool.evaluation import classify, craft, wilson
from unfool.evaluation.statistics.sequential import AccuracyClaim, SequentialTest, anytime_interval, log_evidence
from unfool.evaluation.statistics.settling import evaluate_claim, order

COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60))


# The evidence


@given(COUNTS, st.floats(0.02, 0.98))
def test_evidence_is_the_gambler_s_average_wealth(counts, bound):
    correct, wrong = counts
    wealth = quad(lambda u: (1 + u * (1 - bound) / bound) ** correct * (1 - u) ** wrong, 0, 1, epsabs=0, limit=200)[0]
    assert float(log_evidence(correct, wrong, bound)) == pytest.approx(math.log(wealth), abs=1e-6)


@given(COUNTS, st.floats(0.05, 0.95))
def test_a_fair_game_s_wealth_is_expected_to_stay(counts, bound):
    correct, wrong = counts
    now, won, lost = (math.exp(log_evidence(correct + a, wrong + b, bound)) for a, b in ((0, 0), (1, 0), (0, 1)))
    assert bound * won + (1 - bound) * lost == pytest.approx(now, rel=1e-9)


@given(COUNTS, st.floats(0.02, 0.9), st.floats(0.001, 0.08))
def test_evidence_falls_with_the_bound(counts, bound, more):
    assert log_evidence(*counts, bound + more) <= log_evidence(*counts, bound) + 1e-12


@example((1, 2897))
@settings(max_examples=40)
@given(st.integers(1, 3000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_ends_where_the_evidence_suffices_and_holds_the_exact_one(case):
    correct, total = case
    for confidence in (0.9, 0.95, 0.999):
        low, high = anytime_interval(correct, total, confidence)
        exact = binomtest(correct, total).proportion_ci(confidence)
        assert 0.0 <= low <= exact.low < exact.high <= high <= 1.0
        limit = math.log(2 / (1 - confidence))
        if correct:
            assert log_evidence(correct, total - correct, low) == pytest.approx(limit, abs=1e-5)
        if correct < total:
            assert log_evidence(total - correct, correct, 1 - high) == pytest.approx(limit, abs=1e-5)


def test_no_image_says_nothing_and_ends_that_were_never_seen_stay_possible():
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert anytime_interval(0, 50)[0] == 0.0
    assert anytime_interval(50, 50)[1] == 1.0
    # Of n images all correct, wealth is (1 - c^(n+1)) / ((n + 1) (1 - c) c^n).
    low = anytime_interval(30, 30)[0]
    assert (1 - low**31) / (31 * (1 - low) * low**30) == pytest.approx(40, rel=1e-6)


# Error rates and stopping times, exactly


def stops(evidence, images, limit):
    """For each number of images the smallest number of ``evidence``'s kind that stops; one more than all if none does.

    Evidence grows with that number, so it is found by bisection, for all numbers of images at once.
    """
    totals = np.arange(1, images + 1)
    low, high = np.zeros(images, dtype=int), totals + 1
    while (low < high).any():
        middle = (low + high) // 2
        enough = (middle <= totals) & (evidence(np.minimum(middle, totals), totals) >= limit)
        low, high = np.where(enough, low, np.minimum(middle + 1, high)), np.where(enough, middle, high)
    return high


def run(above, below, chance):
    """Probability to stop above and below when looking after every image, and the mean number of images.

    ``above`` and ``below`` are the numbers of correct and of wrong images that stop; ``chance(correct, images)`` is the
    probability that the next image is correct.
    """
    images = len(above)
    correct = np.arange(images + 1)
    alive, up, down, taken = np.zeros(images + 1), 0.0, 0.0, 0.0
    alive[0] = 1.0
    for done in range(images):
        taken += alive.sum()
        p = chance(correct, done)
        alive = np.append(0.0, (alive * p)[:-1]) + alive * (1 - p)
        high, low = correct >= above[done], (done + 1 - correct >= below[done]) & (correct <= done + 1)
        up, down = up + alive[high].sum(), down + alive[low].sum()
        alive = np.where(high | low, 0.0, alive)
    return up, down, taken


def sequential(bound, alpha, images):
    limit = math.log(2 / alpha)
    return (
        stops(lambda right, total: log_evidence(right, total - right, bound), images, limit),
        stops(lambda wrong, total: log_evidence(wrong, total - wrong, 1 - bound), images, limit),
    )


def drawn(p):
    return lambda correct, images: np.full(len(correct), p)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("bound", [0.1, 0.3, 0.45, 0.9])
def test_error_rate_is_at_most_nominal_at_the_bound_and_on_both_sides(bound, alpha):
    boundaries = sequential(bound, alpha, 1000)
    # At the bound itself this is also the probability that the confidence sequence ever lets go of the truth.
    up, down, _ = run(*boundaries, drawn(bound))
    assert up + down <= alpha
    assert max(up, down) <= alpha / 2
    assert up + down > alpha / 10, "so careful that nothing would ever be settled"
    for distance in (0.01, 0.03, 0.08):
        assert run(*boundaries, drawn(bound - distance))[0] <= alpha / 2
        assert run(*boundaries, drawn(bound + distance))[1] <= alpha / 2


def test_fewer_images_than_the_full_run():
    above, below = sequential(0.45, 0.05, 1000)
    up, down, taken = run(above, below, drawn(0.6))
    assert (up > 0.995, down < 0.005, taken < 150) == (True, True, True)
    up, down, taken = run(above, below, drawn(0.3))
    assert (up < 0.005, down > 0.995, taken < 150) == (True, True, True)
    assert run(above, below, drawn(0.45))[2] > 900


def test_a_table_is_drawn_without_replacement_and_the_error_rate_holds_for_its_own_accuracy_too():
    images, share = 400, 0.45
    for correct_in_all in (int(images * share), int(images * share) - 4):
        up, down, _ = run(
            *sequential(share, 0.05, images),
            lambda correct, done, k=correct_in_all: np.clip((k - correct) / (images - done), 0, 1),
        )
        assert up <= 0.025
        assert down <= 0.025 or correct_in_all < images * share


def test_wilson_s_interval_does_not_survive_looking_after_every_image():
    share, images = 0.45, 500

    def ends(correct, totals):
        return np.array([wilson(int(k), int(n)) for k, n in zip(correct, totals, strict=True)]).T

    above = stops(lambda right, totals: ends(right, totals)[0] - share, images, 0.0)
    below = stops(lambda wrong, totals: share - ends(totals - wrong, totals)[1], images, 0.0)
    up, down, _ = run(above, below, drawn(share))
    assert up + down > 0.25


def test_the_test_itself_in_simulation():
    """400 runs at the bound and 100 beside it, ten images a look: the class does what the computation above did."""
    random = np.random.default_rng(7)
    wrong = 0
    for outcomes in random.random((400, 300)) < 0.3:
        test = SequentialTest(">0.3")
        wrong += any(test.update(batch) for batch in outcomes.reshape(-1, 10))
        low, high = test.interval()
        assert (low <= 0.3 <= high) == (test.verdict is None)
    assert wrong <= 0.05 * 400
    counts = []
    for outcomes in random.random((100, 1000)) < 0.6:
        test = SequentialTest(">=0.45")
        verdicts = [test.update(batch) for batch in outcomes.reshape(-1, 10)]
        assert verdicts[-1] == "holds"
        counts.append(test.count)
    assert np.mean(counts) < 160


# Claims and verdicts


@pytest.mark.parametrize(
    ("text", "relation", "bound"),
    [(">=0.45", ">=", 0.45), (" <= 0.1 ", "<=", 0.1), (">.3", ">", 0.3), ("<1/3", "<", 1 / 3), ("<9e-2", "<", 0.09)],
)
def test_claims_are_read(text, relation, bound):
    claim = AccuracyClaim.parse(text)
    assert claim == AccuracyClaim(relation, bound)
    assert AccuracyClaim.parse(str(claim)).bound == pytest.approx(bound, rel=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "0.45",
        "=0.45",
        "==0.45",
        "=>0.45",
        ">=",
        ">= -0.1",
        ">=45",
        ">=1",
        "<0",
        ">=0.4 or 1",
        "0.3<",
        "",
        ">>0.3",
        None,
    ],
)
def test_what_is_no_claim_is_refused(text):
    with pytest.raises(SpecError) as error:
        AccuracyClaim.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("claim", "high_accuracy"), [(">=0.5", "holds"), (">0.5", "holds"), ("<=0.5", "fails"), ("<0.5", "fails")]
)
def test_verdicts_follow_the_relation(claim, high_accuracy):
    up, down = SequentialTest(claim), SequentialTest(claim)
    assert up.update([True] * 3) is None
    assert up.update([True] * 20) == up.verdict == high_accuracy
    assert up.interval()[0] > 0.5
    assert down.update([False] * 20) == {"holds": "fails", "fails": "holds"}[high_accuracy]
    assert down.interval()[1] < 0.5


def test_a_claim_is_settled_at_the_first_image_that_suffices_and_stays_so():
    """All correct against 1/2: the wealth (2^(n+1) - 1) / (n + 1) reaches 2/0.05 at n = 8 and 2/0.2 at n = 5."""
    for alpha, needed in ((0.05, 8), (0.2, 5)):
        test = SequentialTest(">=0.5", alpha)
        assert [test.update([True]) for _ in range(needed)] == [None] * (needed - 1) + ["holds"]
        interval = test.interval()
        assert test.update([False] * 1000) == "holds"
        assert (test.count, test.correct, test.interval()) == (needed, needed, interval)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, math.nan])
def test_an_error_rate_outside_0_to_1_is_refused(alpha):
    with pytest.raises(SpecError, match="error rate"):
        SequentialTest(">=0.5", alpha)


def test_intervals_of_no_share_are_refused():
    for arguments in ((3, 2), (-1, 2), (1, 2, 1.0)):
        with pytest.raises(SpecError):
            anytime_interval(*arguments)


# On a model


def test_the_order_is_random_and_belongs_to_the_images():
    ids = torch.arange(200) * 7 + 3
    rows = order(ids, 0)
    assert torch.equal(rows.sort().values, torch.arange(200))
    assert not torch.equal(rows, order(ids, 1))
    assert abs(np.corrcoef(rows.numpy(), np.arange(200))[0, 1]) < 0.3
    # The same images in another table, and some of them, come in the same order.
    shuffled = torch.arange(200).flip(0)
    assert torch.equal(ids[shuffled][order(ids[shuffled], 0)], ids[rows])
    some = ids[::3]
    assert some[order(some, 0)].tolist() == [value for value in ids[rows].tolist() if value in some.tolist()]


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table(network):
    """The network's own classes as labels: all correct until attacked."""
    return table_of(network, 40)


@pytest.mark.parametrize(
    ("threat", "claim", "verdict"),
    [("linf:1e-6", ">=0.5", "holds"), ("linf:1e-6", "<0.5", "fails"), ("linf:0.5", "<=0.5", "holds")],
)
def test_attacks_stop_once_the_claim_is_settled(network, table, threat, claim, verdict):
    reported = []
    attack = make_attack("pgd-10", threat)
    found = evaluate_claim(network, table, attack, claim, batch_size=4, progress=lambda what, *at: reported.append(at))
    assert found.verdict == verdict
    assert (found.records.count, found.available, reported) == (8, 40, [(4, 40), (8, 40)])
    assert found.records.ids == table.ids[order(table.ids, 0)][:8].tolist()
    assert (found.low, found.high) == anytime_interval(sum(found.records.correct), 8)
    assert found.records.protocol == "white-box"
    full = classify(network, craft(network, table, attack))
    assert found.records.model_images < full.model_images / 3
    assert verdict in found.words()
    assert "8 of 40" in found.words()
    row = found.row("any", settings={"pool": "a"})
    assert (row.low, row.high) == (round(found.low, 6), round(found.high, 6))
    assert row.high - row.low > found.records.interval()[1] - found.records.interval()[0]
    assert row.settings == {"claim": claim, "error rate": 0.05, "verdict": verdict, "pool": "a"}


def test_what_cannot_be_settled_is_undecided_and_equals_the_full_run(network, table):
    attack = make_attack("pgd-3", "linf:16/255")
    full = classify(network, craft(network, table, attack, seed=3))
    assert 0.1 < full.accuracy < 0.9
    bound = round(full.accuracy, 2)
    found = evaluate_claim(network, table, attack, f">={bound}", seed=3, batch_size=7)
    assert found.verdict == "undecided"
    assert found.low < bound < found.high
    assert "is undecided" in found.words()
    expected = dict(zip(full.ids, zip(full.correct, full.losses, full.labels, strict=True), strict=True))
    records = found.records
    assert [expected[image][0] for image in records.ids] == records.correct
    assert [expected[image][1] for image in records.ids] == pytest.approx(records.losses, abs=1e-5)
    assert [expected[image][2] for image in records.ids] == records.labels
    assert sorted(records.ids) == sorted(full.ids)
    assert records.model_images == full.model_images


@pytest.mark.parametrize(
    ("claim", "right", "reason"),
    [
        (">=0.97", 40, "no outcome on 40 images could show it; give at least"),
        ("<0.01", 40, "no outcome on 40 images could show it; give at least"),
        (">=0.5", 24, "only 24 of 40 images are right without an attack, and even if all of them stood"),
        (">=0.5", 40, ""),
        ("<0.5", 24, ""),
        (">=0.1", 24, ""),
    ],
)
def test_a_claim_that_no_attack_could_let_hold_is_out_of_reach(claim, right, reason):
    flags = np.arange(40) * 7 % 40 < right
    assert SequentialTest(claim).out_of_reach(flags, 4).startswith(reason)
    assert bool(SequentialTest(claim).out_of_reach(flags, 4)) == bool(reason)
    best = SequentialTest(claim)
    for start in range(0, 40, 4):
        best.update(flags[start : start + 4] if claim.startswith(">") else [False] * 4)
    assert (best.verdict == "holds") == (not reason)


@pytest.mark.parametrize(("bound", "relation"), [(0.5, ">="), (0.97, ">"), (0.03, "<=")])
def test_the_images_that_a_claim_needs_are_counted(bound, relation):
    test = SequentialTest(AccuracyClaim(relation, bound))
    needed = int(test.out_of_reach([True], 1).split()[-1])
    outcomes = [relation.startswith(">")] * needed
    assert SequentialTest(test.claim).update(outcomes[:-1]) is None
    assert SequentialTest(test.claim).update(outcomes) == "holds"


def test_what_is_out_of_reach_is_said_with_its_reason(network, table):
    attack = make_attack("fgsm", "linf:1e-6")
    result = evaluate_claim(network, table, attack, ">=0.97")
    assert result.verdict == "out of reach"
    assert "robust accuracy >=0.97 is out of reach: 100.0 % after 40 of 40" in result.words()
    assert "; no outcome on 40 images could show it" in result.words()
    right = [True] * 22 + [False] * 18
    wrong = table.subset(torch.arange(40))
    wrong.columns["label"] = torch.where(torch.tensor(right), table.labels(), 1 - table.labels().clamp(max=1))
    result = evaluate_claim(network, wrong, attack, ">=0.5", right=right)
    assert (result.verdict, sum(result.records.correct)) == ("out of reach", 22)
    assert "only 22 of 40 images are right without an attack" in result.words()
    assert evaluate_claim(network, wrong, attack, ">=0.9", right=right).verdict == "fails"


def test_other_columns_and_seeds_are_passed_on(network, table):
    attack = make_attack("fgsm", "linf:1e-6")
    found = evaluate_claim(network, table, attack, "<0.9", column="parity", seed=5, batch_size=40)
    assert found.records.seed == 5
    assert sum(found.records.correct) == sum(classify(network, table, column="parity").correct)


def test_bad_input_is_refused_before_anything_is_attacked(network, table):
    attack = make_attack("fgsm", "linf:0.1")
    with pytest.raises(DataError, match="no images"):
        evaluate_claim(network, table.subset(torch.arange(0)), attack, ">=0.5")
    for claim, options in (("0.5", {}), (">=0.5", {"alpha": 0}), (">=0.5", {"batch_size": 0})):
        with pytest.raises(SpecError):
            evaluate_claim(network, table, attack, claim, **options)
