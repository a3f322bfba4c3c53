"""How attacks are written, and what is said of those that are written wrongly."""

import pytest

from unfool.attacks import make_attack
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel

THREAT = ThreatModel.parse("linf:8/255")


def engine(text, settings=None):
    found = make_attack(text, THREAT, settings).engine
    assert isinstance(found, ProjectedGradient)
    return found


def test_defaults_are_those_of_the_papers():
    assert engine("fgsm") == ProjectedGradient(threat=THREAT, steps=1, step_size=8 / 255, goal="last")
    assert engine("pgd-7") == ProjectedGradient(
        threat=THREAT, steps=7, step_size=2 / 255, random_start=True, goal="success"
    )


@pytest.mark.parametrize(
    "text",
    [
        "pgd-20:step_size=2/255,restarts=5,goal=best",
        "pgd:steps=20,step_size=2/255,restarts=5,goal=best",
        " pgd-20 : restarts = 5 , goal=best ",
    ],
)
def test_one_attack_can_be_written_in_several_ways(text):
    expected = ProjectedGradient(threat=THREAT, steps=20, step_size=2 / 255, random_start=True, restarts=5, goal="best")
    assert engine(text) == expected
    assert engine("pgd-20", {"restarts": 5, "goal": "best"}) == expected


def test_what_the_text_says_comes_before_the_settings():
    assert engine("pgd-3:restarts=2", {"restarts": 7}).restarts == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pgdd-7", "did you mean 'pgd'"),
        ("fsgm", "did you mean 'fgsm'"),
        ("pgd-7:step=1", "did you mean 'steps'"),
        ("pgd-7:restart=2", "did you mean 'restarts'"),
        ("fgsm:stepsize=1/255", "did you mean 'step_size'"),
        ("fgsm-3", "steps"),
        ("pgd-7:steps=8", "sets its steps twice"),
        ("pgd-7:restarts=0", "restarts='0' is not allowed"),
        ("pgd-7:restarts=two", "restarts='two' is not allowed"),
        ("pgd:steps=-1", "steps='-1' is not allowed"),
        ("pgd:steps=1.5", "steps='1.5' is not allowed"),
        ("pgd-7:step_size=-1/255", "step_size"),
        ("pgd-7:step_size=1/0", "step_size"),
        ("pgd-7:step_size=__import__('os')", "step_size"),
        ("pgd-7:step_size=1e999", "step_size"),
        ("pgd-7:goal=win", "goal"),
        ("pgd-7:goal=last_unchecked", "allowed: last, best, success"),
        ("fgsm:goal=last_unchecked", "allowed: last, best, success"),
        ("pgd-7:goal=last,restarts=2", "restarts=2 with goal=last would keep the last run alone"),
        ("pgd-7:random_start=perhaps", "random_start"),
        ("pgd-7:random_start=false,restarts=2", "random start"),
        ("pgd-7:restarts", "key=value"),
        ("pgd-7:restarts=2,restarts=3", "each key once"),
        ("", "unknown attack"),
    ],
)
def test_mistakes_are_named_in_one_line(text, words):
    with pytest.raises(SpecError) as error:
        make_attack(text, THREAT)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_threat_model_may_be_text():
    assert make_attack("fgsm", "l2:0.5").threat == ThreatModel("l2", 0.5)
    with pytest.raises(SpecError, match="perhaps linf:8/255 was meant"):
        make_attack("fgsm", "linf:8")
