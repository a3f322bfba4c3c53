"""The one call: every figure is the one that its parts give alone, and every doubt reaches the result."""

import json
import threading

import pytest
import torch
from tiny_systems import Gives, make_network, make_table

from unfool import Attack, Linf, adapt, classify, craft, evaluate, make_attack
from unfool.attacks import CustomAttack
from unfool.core.errors import SpecError, UnfoolError, UnfoolWarning
from unfool.evaluation.crafting.evaluation_folder import attack_folder, discard
from unfool.evaluation.curves import CurvePoints
from unfool.evaluation.results.check import check_results
from unfool.evaluation.settings import EvaluationSettings
from unfool.evaluation.statistics.settling import evaluate_claim

ATTACKS = ["fgsm", "pgd-3:restarts=2"]
QUICK = EvaluationSettings(reliability=False)


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def table():
    return make_table(24)


def plain(rows):
    """Rows without what depends on the clock."""
    return [{**row.to_json(), "cost": row.cost.model_images} for row in rows]


def test_rows_are_what_crafting_and_judging_give(network, table):
    found = evaluate(
        network, table, ATTACKS, name="ours", settings=EvaluationSettings(threat="l2:0.5", seed=4, reliability=False)
    )
    wanted = [classify(network, table).row("ours")]
    correct = torch.ones(24, dtype=torch.bool)
    for text in ATTACKS:
        records = classify(network, craft(network, table, make_attack(text, "l2:0.5"), seed=4))
        correct &= torch.tensor(records.correct)
        wanted.append(records.row("ours", settings={"restarts": "2"} if "restarts" in text else {}))
    *rows, worst = plain(found.rows)
    for row, other in zip(rows, plain(wanted), strict=True):
        assert {key: row[key] for key in other if key not in ("threat", "cost")} == {
            key: other[key] for key in other if key not in ("threat", "cost")
        }
    assert (worst["attack"], worst["accuracy"]) == (
        "worst-case",
        pytest.approx(float(correct.float().mean()), abs=1e-6),
    )
    assert [records.protocol for records in found.records] == ["clean", "white-box", "white-box", "white-box"]
    assert found.reliability is None
    by_class = found.to_json()["classes"]
    assert sum(one["n"] * one["accuracy"] for one in by_class["worst-case"]) == pytest.approx(24 * worst["accuracy"])
    assert sum(one["n"] for one in by_class["none"]) == 24


def test_successes_are_told_by_part_where_there_are_two(network, table):
    parts = (*make_attack("fgsm", "linf:8/255").parts, *make_attack("pgd-2", "linf:8/255").parts)
    both = CustomAttack(Linf(8 / 255), label="both", components=parts)
    single, several = (evaluate(network, table, [one], settings=QUICK).rows[1] for one in ("fgsm", both))
    assert single.fooled_by is None
    assert set(several.fooled_by) <= {part.name for part in parts}
    assert len(several.fooled_by) == 2


def test_the_same_call_gives_the_same_rows(network, table):
    first, second = (evaluate(network, table, ["pgd-3"], settings=QUICK) for _ in range(2))
    assert plain(first.rows) == plain(second.rows)


def test_stored_sets_join_the_worst_case_where_they_fit(network, table):
    other = make_network(seed=1)
    fitting = craft(other, table, make_attack("pgd-5:goal=last", "linf:8/255"))
    elsewhere = craft(other, table, make_attack("fgsm", "linf:4/255"))
    stored = {"a": fitting, "b": elsewhere}
    found = evaluate(network, table, ["fgsm"], stored_sets=stored, settings=QUICK)
    assert [(row.attack, row.protocol, row.settings.get("on")) for row in found.rows] == [
        ("none", "clean", None),
        ("fgsm", "white-box", None),
        ("pgd-5", "transfer", "a"),
        ("fgsm", "transfer", "b"),
        ("worst-case", "white-box", None),
    ]
    assert [one["attack"] for one in found.records[-1].settings["attacks"]] == ["fgsm", "pgd-5"]
    alone = evaluate(network, None, stored_sets=stored)
    assert [row.protocol for row in alone.rows] == ["transfer", "transfer"]
    check_results(found.to_json())
    check_results(alone.to_json())


def test_reliability_sees_what_was_evaluated(network, table):
    found = evaluate(
        network, table, ["fgsm:step_size=1/255"], stored_sets={"a": craft(make_network(1), table, _last())}
    )
    assert found.reliability is not None
    flags = {flag.name for flag in found.reliability.flags}
    assert "short-steps" in flags
    assert "transfer-wins" in found.reliability.checked or "not-checked" in flags
    assert any(text.startswith("short-steps: fgsm") for text in found.doubts)
    assert found.to_json()["doubts"] == found.doubts


def _last():
    return make_attack("pgd-5:goal=last", "linf:8/255")


def test_doubts_name_flat_rows_and_failed_strength_tests(table):
    labels = table.labels()
    constant = Gives(lambda images: torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), 4) * 1.0)
    found = evaluate(constant, table, ["pgd-2"], settings=QUICK)
    standing = int((labels == 0).sum())
    assert standing > 1
    assert found.doubts == [
        f"pgd-2: the attacked network gave no gradient on {standing} of 24 images",
        f"chance: {found.at_chance}",
    ]
    own = make_table(24)
    with torch.no_grad():
        own.columns["label"] = make_network()(own.batch().images).argmax(1)
    assert evaluate(make_network(), own, ["pgd-2"], settings=QUICK).doubts == []
    weak = evaluate(
        make_network(),
        own,
        ["pgd-1:step_size=0"],
        settings=EvaluationSettings(binarization_test=True, reliability=False),
    )
    assert len(weak.doubts) == 1
    assert "FAILED" in weak.doubts[0]


def test_a_claim_stops_the_attack(network, table):
    alone = evaluate_claim(network, table, make_attack("fgsm", "linf:8/255"), "<0.999")
    found = evaluate(network, table, ["fgsm"], settings=EvaluationSettings(claim="<0.999", reliability=False))
    assert found.claim is not None
    assert found.claim.verdict == alone.verdict == "holds"
    assert [row.attack for row in found.rows] == ["none", "fgsm"]
    assert (found.rows[1].low, found.rows[1].high) == (round(alone.low, 6), round(alone.high, 6))
    (claim,) = found.to_json()["claims"]
    assert (claim["verdict"], claim["evidence"]) == ("holds", alone.words())
    check_results(found.to_json())


@pytest.mark.parametrize(
    ("curve", "attack", "points"),
    [
        ("eps=0, 2/255,8/255", "pgd-2", [("pgd-2", "linf:0"), ("pgd-2", "linf:2/255"), ("pgd-2", "linf:8/255")]),
        ("steps=1,3", "pgd-2:restarts=2", [("pgd-1", "linf:8/255"), ("pgd-3", "linf:8/255")]),
    ],
)
def test_curves_become_rows_of_their_own(network, table, curve, attack, points):
    found = evaluate(
        network, table, [attack], settings=EvaluationSettings(curve=CurvePoints.parse(curve), reliability=False)
    )
    rows = [row for row in found.rows if "curve" in row.settings]
    assert [(row.attack, row.threat) for row in rows] == points
    shares = [row.accuracy for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < found.rows[0].accuracy
    check_results(found.to_json())


def test_corruptions_are_summed_up(network, table):
    found = evaluate(
        network,
        table,
        settings=EvaluationSettings(corruptions=True, severities=(5, 1, 5), reliability=False),
    ).to_json()["corruptions"]
    shares = {(one["corruption"], one["severity"]): one["accuracy"] for one in found["under"]}
    assert len(shares) == 30
    assert found["accuracy"] == pytest.approx(sum(shares.values()) / 30, abs=1e-5)
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert json.dumps(found)


def test_an_interrupted_evaluation_goes_on(network, table, tmp_path, monkeypatch):
    whole = evaluate(network, table, ATTACKS, settings=QUICK)

    def stopped(what, done, total, note=""):
        if what == ATTACKS[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(network, table, ATTACKS, folder=tmp_path / "state", progress=stopped, settings=QUICK)
    first = attack_folder(tmp_path / "state", ATTACKS[0], make_attack(ATTACKS[0], "linf:8/255"))
    assert first is not None
    assert list(first.glob("batch-*"))
    seen = []
    call = Attack.__call__
    monkeypatch.setattr(Attack, "__call__", lambda self, *a, **k: seen.append(self.name) or call(self, *a, **k))
    resumed = evaluate(network, table, ATTACKS, folder=tmp_path / "state", settings=QUICK)
    assert seen == ["pgd-3"]
    assert plain(resumed.rows) == plain(whole.rows)
    assert [(one.correct, one.losses, one.distances) for one in resumed.records] == [
        (one.correct, one.losses, one.distances) for one in whole.records
    ]
    (tmp_path / "state" / "mine.txt").write_text("the user's own")
    discard(tmp_path / "state", ATTACKS, "linf:8/255")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("attacks", "settings", "piece"),
    [
        (["fgms"], {}, "did you mean 'fgsm'"),
        ([], {"thraet": "l2:1"}, "did you mean 'threat'"),
        ([], {"precision": "fp8"}, "precision"),
        (["fgsm", "pgd-2"], {"claim": ">0.5"}, "exactly one"),
        ([], {"curve": "steps=3"}, "exactly one"),
        (["pgd-2"], {"curve": "steps=3,x"}, "'x'"),
        (["pgd-2"], {"curve": "eps"}, "eps=2/255"),
        (["pgd-2"], {"claim": "0.5"}, "claim '0.5'"),
        (["pgd-2"], {"alpha": 0.0}, "alpha"),
        ([], {"severities": (0,)}, "severities"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_any_work(table, attacks, settings, piece):
    def untouchable(images):
        pytest.fail("looked at an image")

    def run():
        values = {"curve": CurvePoints.parse(settings["curve"])} if "curve" in settings else settings
        evaluate(Gives(untouchable), table, attacks, settings=EvaluationSettings(**values))

    with pytest.raises(SpecError) as caught:
        run()
    assert piece in str(caught.value)


def test_there_must_be_something_to_judge_on(network):
    for attacks, stored in ((["fgsm"], {}), ([], {})):
        with pytest.raises(SpecError, match="give a table"):
            evaluate(network, None, attacks, stored_sets=stored)


def test_five_lines_for_a_foreign_module(table):
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 4)).eval()
    found = evaluate(adapt(module, mean="0.5", std="0.25"), table, ["pgd-2"], settings=QUICK)
    assert [row.protocol for row in found.rows] == ["clean", "white-box"]


class Uncopied(torch.nn.Module):
    """A module that holds what cannot be copied."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.lock = threading.Lock()

    def forward(self, images):
        with self.lock:
            return self.network(images)


def test_a_module_that_cannot_be_copied_is_attacked_itself(network, table):
    with pytest.warns(UnfoolWarning, match="Uncopied cannot be copied"):
        found = evaluate(Uncopied(network), table, ["pgd-2"], settings=QUICK)
    assert [row.protocol for row in found.rows] == ["clean", "white-box"]
    with pytest.raises(SpecError, match="Uncopied cannot be copied"):
        evaluate(Uncopied(network), table, ["pgd-2"], settings=EvaluationSettings(precision="bf16", reliability=False))


def test_one_attack_needs_no_list_and_an_object_is_as_good_as_its_name(network, table):
    by_name = evaluate(network, table, "fgsm", settings=QUICK)
    attack = make_attack("fgsm", "linf:8/255")
    for attacks in (attack, [attack], (attack, "fgsm")):
        assert plain(evaluate(network, table, attacks, settings=QUICK).rows) == plain(by_name.rows)


def test_the_threat_model_of_objects_is_that_of_the_evaluation(network, table):
    found = evaluate(network, table, [make_attack("pgd-2:restarts=2", "l2:0.5"), "fgsm"], settings=QUICK)
    assert [(row.attack, row.threat, row.settings) for row in found.rows] == [
        ("none", "l2:0.5", {}),
        ("pgd-2", "l2:0.5", {"restarts": 2}),
        ("fgsm", "l2:0.5", {}),
        ("worst-case", "l2:0.5", {}),
    ]
    with pytest.raises(SpecError, match=r"fgsm stays within l2:0.5, and the evaluation is of linf:8/255"):
        evaluate(network, table, make_attack("fgsm", "l2:0.5"), settings=EvaluationSettings(threat="linf:8/255"))
    with pytest.raises(SpecError, match="stays within linf:1/255"):
        evaluate(network, table, [make_attack("fgsm", "l2:0.5"), make_attack("fgsm", "linf:1/255")])


def test_tensors_are_a_table(network, table):
    images, labels = table.batch().images, table.labels()
    found = evaluate(network, (images, labels), "fgsm", settings=QUICK)
    of_table = evaluate(network, table, "fgsm", settings=QUICK)
    assert [row.accuracy for row in found.rows] == [row.accuracy for row in of_table.rows]
    examples = craft(network, (images, labels), "fgsm", threat="l2:0.5")
    assert torch.equal(examples.images, craft(network, table, make_attack("fgsm", "l2:0.5")).images)
    assert classify(network, (images, labels)).correct == classify(network, table).correct


@pytest.mark.parametrize(
    ("attacks", "piece"),
    [
        (3, "3 is not an attack"),
        ([3], "3 is not an attack"),
        ([torch.zeros(2)], "a value of type Tensor is not an attack"),
        ("f", "unknown attack 'f'"),
    ],
)
def test_what_is_no_attack_is_refused_in_one_line(network, table, attacks, piece):
    with pytest.raises(SpecError, match=piece):
        evaluate(network, table, attacks)


def test_attacks_that_share_a_name_are_told_apart_or_refused(network, table):
    one = make_attack("pgd-2", "linf:8/255")
    other = CustomAttack(one.threat, label="pgd-2", components=make_attack("pgd-3", "linf:8/255").parts)
    with pytest.raises(SpecError, match="two different attacks are called pgd-2"):
        evaluate(network, table, [one, other])
    found = evaluate(network, table, [one, make_attack("pgd-2:step_size=0.01", "linf:8/255")], settings=QUICK)
    assert [row.settings for row in found.rows[1:3]] == [{}, {"step_size": 0.01}]
    check_results(found.to_json())


@pytest.mark.parametrize("data", [None, 3, {"a": 1}, (1, 2, 3), torch.zeros(2, 3, 4, 4)])
def test_what_is_no_data_is_refused_in_one_line(network, data):
    with pytest.raises(UnfoolError) as caught:
        evaluate(network, data, "fgsm")
    assert "\n" not in str(caught.value)
