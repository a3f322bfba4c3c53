"""Attacks as objects: they are what the text makes, are short to print, and say what they learn from."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import make_batch, make_network, problem
from torch import nn

from unfool import L0, L1, L2, Linf, attacks, make_attack
from unfool.attacks import ATTACKS, Attack, CustomAttack, Part, Perturbed
from unfool.attacks.objective import LabelLoss
from unfool.core.config import configured
from unfool.core.errors import ImagesError, SpecError
from unfool.core.threat import ThreatModel

NETWORK = make_network().eval()
EPS8 = Linf(8 / 255)

PAIRS = [
    ("fgsm", attacks.FGSM(EPS8)),
    ("fgsm-rs", attacks.FGSM(EPS8, random_start=True, step_size=10 / 255, label="fgsm-rs")),
    ("n-fgsm", attacks.NFGSM(EPS8)),
    ("pgd-20:restarts=5", attacks.PGD(EPS8, steps=20, restarts=5)),
    ("pgd20", attacks.PGD(EPS8, steps=20)),
    ("cw-pgd-7:goal=best", attacks.CWPGD(EPS8, steps=7, goal="best")),
    ("apgd-ce", attacks.APGD(EPS8)),
    ("apgd-ce-20", attacks.APGD(EPS8, steps=20)),
    ("apgd-dlr:restarts=2", attacks.APGD(EPS8, loss="dlr", restarts=2)),
    ("apgd-t:targets=3", attacks.APGD(EPS8, loss="dlr-targeted", targets=3)),
    ("fab", attacks.FAB(EPS8, targets=0)),
    ("fab-t-50", attacks.FAB(EPS8, steps=50)),
    ("square-1000:p=0.5", attacks.Square(EPS8, steps=1000, p=0.5)),
    ("autoattack", attacks.AutoAttack(EPS8)),
    ("aa:version=plus,steps=5,queries=20", attacks.AutoAttack(EPS8, version="plus", steps=5, queries=20)),
    ("pgd-3:eot_draws=4", attacks.PGD(EPS8, steps=3, eot_draws=4)),
]


@pytest.mark.parametrize(("text", "attack"), PAIRS, ids=[text for text, _ in PAIRS])
def test_the_text_makes_the_same_object(text, attack):
    assert make_attack(text, "linf:8/255") == attack
    assert make_attack(text, EPS8).parts == attack.parts


@pytest.mark.parametrize(("text", "attack"), PAIRS, ids=[text for text, _ in PAIRS])
def test_name_and_unusual_settings_are_the_attack_again(text, attack):
    assert make_attack(attack.name, attack.threat, attack.unusual_settings) == attack


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_the_budgets_of_an_ensemble_are_those_of_its_parts(version, norm):
    attack = attacks.AutoAttack(ThreatModel(norm, 0.1), version=version, steps=7, queries=11)
    for part in attack.parts:
        assert part.engine.steps == (11 if part.name == "square" else 7)
        assert part.engine.threat == attack.threat


def test_reprs_show_what_is_set():
    assert repr(attacks.PGD(EPS8, steps=20, restarts=5)) == "PGD(linf:8/255, steps=20, restarts=5)"
    assert repr(attacks.AutoAttack(L2(0.5))) == "AutoAttack(l2:0.5)"
    assert repr(attacks.PGD(EPS8, step_size=2 / 255, label="mine")) == "PGD(linf:8/255, step_size=2/255, label='mine')"


def test_settings_are_those_that_records_have_always_kept():
    pgd = {"steps": 7, "step_size": 2 / 255, "random_start": True, "restarts": 1, "goal": "success"}
    assert make_attack("pgd-7", EPS8).settings == pgd
    assert make_attack("fgsm", EPS8).settings == {
        "step_size": 8 / 255,
        "random_start": False,
        "goal": "last",
        "steps": 1,
    }
    apgd = {"steps": 100, "restarts": 1, "wide": True, "goal": "success"}
    assert make_attack("apgd-ce", L1(12)).settings == apgd
    assert make_attack("apgd-t", L1(12)).settings == {**apgd, "targets": 9}
    assert make_attack("fab", EPS8).settings == {"steps": 100, "restarts": 1}
    assert make_attack("fab-t", EPS8).settings == {"steps": 100, "restarts": 1, "targets": 9}
    assert make_attack("square", EPS8).settings == {"steps": 5000, "p": 0.8, "restarts": 1}
    published = {"version": "standard", "steps": 100, "queries": 5000, "draws": 20}
    assert make_attack("aa", EPS8).settings == published
    assert make_attack("aa:drop_hopeless=true", EPS8).settings == {**published, "drop_hopeless": True}


def test_another_threat_model_scales_what_depends_on_it():
    attack = dataclasses.replace(make_attack("pgd-7", EPS8), threat=Linf(4 / 255))
    assert attack == make_attack("pgd-7", "linf:4/255")
    assert attack.settings["step_size"] == 1 / 255
    assert dataclasses.replace(attack, steps=9).name == "pgd-9"


def test_what_an_attack_learns_from_is_declared():
    threats = {"linf": EPS8, "l2": L2(0.5), "l0": L0(5)}
    by_name = {
        name: make_attack(name, threats[next(norm for norm in threats if norm in ATTACKS[name].norms)])
        for name in ATTACKS
    }
    followers = {name for name, attack in by_name.items() if attack.follows_gradients}
    assert followers == set(ATTACKS) - {"square", "hop-skip-jump"}
    assert by_name["hop-skip-jump"].learns_from == ["decisions"]
    assert make_attack("square", EPS8).learns_from == ["scores"]
    ensemble = make_attack("aa", EPS8)
    assert ensemble.part_names == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert ensemble.learns_from == ["gradient", "gradient", "gradient", "scores"]


@dataclasses.dataclass(frozen=True)
class Brighter:
    """Makes images brighter and tells nothing of gradients."""

    threat: object

    def run(self, problem):
        images = self.threat.project(problem.images + self.threat.eps, problem.images)
        with torch.no_grad():
            value = problem.objective(images, torch.arange(len(images)))
        return Perturbed(
            images=images,
            losses=value.losses,
            fooled=value.fooled,
            zero_gradient=torch.zeros_like(value.fooled),
            model_images=len(images),
        )


def test_a_black_box_attack_of_ones_own_is_one_class():
    @configured
    class Brightness(Attack):
        """Adds eps to every pixel."""

        times: int = 1

        @property
        def parts(self):
            return (Part(name=self.name, engine=Brighter(self.threat), learns_from="nothing"),)

    attack = Brightness(Linf(0.1), times=2)
    assert repr(attack) == "Brightness(linf:0.1, times=2)"
    assert (attack.name, attack.settings, attack.unusual_settings) == ("brightness", {"times": 2}, {"times": 2})
    assert not attack.follows_gradients
    images, labels, ids = make_batch(NETWORK)
    attacked = attack(NETWORK, images, labels, ids=ids)
    with torch.no_grad():
        assert torch.equal(attacked.fooled, NETWORK(attacked.images).argmax(1) != labels)


def test_a_custom_attack_runs_its_engines():
    images, labels, ids = make_batch(NETWORK)
    parts = make_attack("pgd-5", "linf:0.02").parts
    attack = CustomAttack(Linf(0.02), label="pgd-5", components=parts)
    assert torch.equal(
        attack(NETWORK, images, labels, ids=ids).images,
        make_attack("pgd-5", "linf:0.02")(NETWORK, images, labels, ids=ids).images,
    )


@pytest.mark.parametrize("followed", [False, True])
def test_only_an_attack_with_a_part_that_follows_gradients_says_that_there_were_none(followed):
    class Flat(nn.Module):
        def forward(self, images):
            return images.flatten(1).round().sum(1, keepdim=True) * torch.tensor([[0.0, -1.0, -2.0]])

    images, labels = torch.full((2, 3, 8, 8), 0.8), torch.zeros(2, dtype=torch.int64)
    parts = (*attacks.Square(EPS8, steps=3).parts, *attacks.Square(EPS8, steps=4).parts)
    if followed:
        parts += attacks.PGD(EPS8, steps=2).parts
    attacked = CustomAttack(EPS8, label="several", components=parts)(Flat(), images, labels)
    assert not attacked.fooled.any()
    assert attacked.zero_gradient.tolist() == [followed] * 2


def test_the_mean_over_draws_is_followed():
    images, labels, ids = make_batch(NETWORK, 4)
    attack = attacks.PGD(Linf(0.02), steps=3, eot_draws=5)
    assert (
        attack(NETWORK, images, labels, ids=ids).model_images
        == 5 * attacks.PGD(Linf(0.02), steps=3)(NETWORK, images, labels, ids=ids).model_images
    )


def test_the_nearest_examples_follow_the_mean_over_draws_too():
    images, labels, ids = make_batch(NETWORK, 4)
    passes = [
        attacks.FMN(L2(0.5), steps=3, eot_draws=draws).unbounded((3, 8, 8))(NETWORK, images, labels, ids=ids)
        for draws in (1, 5)
    ]
    assert passes[1].model_images == 5 * passes[0].model_images


def test_a_prepared_problem_gives_the_same():
    images, labels, ids = make_batch(NETWORK)
    attack = attacks.PGD(Linf(0.02), steps=3)
    solved = attack.run(problem(LabelLoss(NETWORK, labels), images, ids))
    assert torch.equal(solved.images, attack(NETWORK, images, labels, ids=ids).images)


@pytest.mark.parametrize("labels", ["list", "numpy", "int32", "uint8"])
def test_labels_may_be_any_integers(labels):
    images, classes, ids = make_batch(NETWORK, 6)
    given_as = {
        "list": classes.tolist(),
        "numpy": classes.numpy().astype(np.int16),
        "int32": classes.int(),
        "uint8": classes.to(torch.uint8),
    }[labels]
    attack = attacks.PGD(Linf(0.02), steps=3)
    assert torch.equal(
        attack(NETWORK, images, given_as, ids=ids).images, attack(NETWORK, images, classes, ids=ids).images
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.zeros(6), "float32"),
        (torch.zeros(5, dtype=torch.int64), "one int64 class per image"),
        ([0, 1, 2, 3, -1, 0], "label -1 is no class"),
        (["cat"] * 6, "cannot be read"),
        (None, "cannot be read"),
        (torch.full((6,), 9), "beyond the model's 4 classes"),
    ],
)
def test_other_labels_are_refused(labels, words):
    images, _, ids = make_batch(NETWORK, 6)
    with pytest.raises(ImagesError, match=words):
        attacks.FGSM(EPS8)(NETWORK, images, labels, ids=ids)


def test_a_model_that_is_no_module_is_refused():
    images, labels, _ = make_batch(NETWORK, 6)
    with pytest.raises(SpecError, match="give a torch"):
        attacks.FGSM(EPS8)(lambda images: images.flatten(1), images, labels)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: attacks.PGD(3), "such as Linf"),
        (lambda: attacks.PGD("linf:8"), "perhaps linf:8/255 was meant"),
        (lambda: attacks.PGD(), "needs threat"),
        (lambda: attacks.PGD(EPS8, step=3), "did you mean 'steps'"),
        (lambda: attacks.PGD(eps=8 / 255), "did you mean 'threat'"),
        (lambda: attacks.PGD(EPS8, restarts=2, random_start=False), "set random_start"),
        (lambda: attacks.PGD(EPS8, eot_draws=0), "eot_draws"),
        (lambda: attacks.APGD(EPS8, targets=3), "use loss='dlr-targeted'"),
        (lambda: attacks.AutoAttack(EPS8, version="best"), "version"),
        (lambda: attacks.AutoAttack(EPS8, version="rand", eot_draws=5), "draws=20, and eot_draws=5 was given too"),
        (lambda: make_attack("aa:version=rand,eot_draws=5", EPS8), "set draws alone"),
        (lambda: make_attack("apgd-ce:loss=dlr", EPS8), "unknown key"),
        (lambda: make_attack("apgd-ce:targets=3", EPS8), "unknown key"),
        (lambda: make_attack("fab:targets=3", EPS8), "unknown key"),
        (lambda: make_attack("pgd:label=mine", EPS8), "unknown key"),
        (lambda: make_attack("autoatack", EPS8), "did you mean 'autoattack'"),
        (lambda: make_attack("pdg20", EPS8), "did you mean 'pgd'"),
        (lambda: make_attack("fgsm,pgd-20", EPS8), "is several names; give a list of them, or --attack several times"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(SpecError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_given_by_name():
    with pytest.raises(TypeError, match="threat may be given without a name"):
        attacks.PGD(EPS8, 20)
    with pytest.raises(TypeError, match="threat twice"):
        attacks.PGD(EPS8, threat=EPS8)


@given(level=st.integers(0, 255))
def test_a_pixel_level_is_written_as_one(level):
    threat = Linf(level / 255)
    assert threat.eps == level / 255
    assert str(threat) in (f"linf:{level}/255", f"linf:{level / 255:g}")
    assert type(threat).parse(str(threat)) == threat


@given(eps=st.just(0.0) | st.floats(1e-30, 1e3), make=st.sampled_from([L2, L1]))
def test_any_eps_is_read_back(eps, make):
    assert type(make(eps)).parse(str(make(eps))) == make(eps)


@pytest.mark.parametrize("eps", ["8/255", None, True, float("nan"), -0.1, 8])
def test_what_is_no_eps_is_refused(eps):
    with pytest.raises(SpecError, match="eps"):
        Linf(eps)


@pytest.mark.parametrize("name", ["FGSM", "NFGSM", "PGD", "CWPGD", "APGD", "FAB", "Square", "AutoAttack"])
def test_every_setting_is_documented(name):
    cls = getattr(attacks, name)
    text = inspect.getdoc(cls)
    for part in ("Args:", "Returns:", "Raises:", "Example:"):
        assert part in text
    for field in dataclasses.fields(cls):
        assert f"    {field.name}: " in text, field.name


def test_a_model_of_one_line_can_be_attacked():
    model = nn.Sequential(nn.Flatten(), nn.Identity())
    images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
    assert attacks.FGSM(Linf(0.1))(model, images, [0]).fooled.tolist() == [True]
