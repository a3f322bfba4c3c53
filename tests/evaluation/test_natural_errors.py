"""What is said of figures at the right time: whose success, which draw, which order, which scale."""

import dataclasses
import warnings

import pytest
import torch
from masking_layers import FailsBackwards
from torch import nn

from unfool import EvaluationSettings, Linf, attacks, classify, craft, evaluate, load_set, save_set
from unfool.core.errors import ImagesError, SpecError, UnfoolWarning
from unfool.data.table import Table
from unfool.evaluation.crafting.chosen_attacks import choose_attacks
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.reliability.evidence import GRADIENT, Evidence
from unfool.evaluation.reliability.model_checks import Subject, missing_normalisation
from unfool.evaluation.reliability.output_checks import chance, chance_text
from unfool.evaluation.results.rows import Row
from unfool.models.foreign import adapt

QUICK = EvaluationSettings(threat="linf:0.1", reliability=False)
CLASSES = 4


class Brightest(nn.Module):
    """The channel that is brightest is the class; ``change`` is made to its logits."""

    def __init__(self, change=lambda logits: logits):
        super().__init__()
        self.scale, self.change = nn.Parameter(torch.ones(())), change

    def forward(self, images):
        return self.change(self.scale * images.mean((2, 3)))


def table(count=32, wrong=0, **more):
    """Images of the class of their brightest channel, of which the first ones are labelled wrongly."""
    labels = torch.arange(count) % CLASSES
    images = torch.full((count, CLASSES, 4, 4), 0.4)
    images[torch.arange(count), labels] = 0.45 + 0.2 * (torch.arange(count) % 3 == 0)[:, None, None]
    shown = labels.clone()
    shown[:wrong] = (shown[:wrong] + 1) % CLASSES
    return Table.from_tensors(images, {"label": shown, **more})


@pytest.mark.parametrize("name", ["fgsm", "fgsm-rs", "pgd-3", "cw-pgd-3", "apgd-ce", "fab", "square-20", "autoattack"])
def test_an_image_that_was_wrong_before_is_nobody_s_success(name, tmp_path):
    model, data = Brightest(), table(8, wrong=3)
    chosen = attacks.make_attack(name + (":steps=3" if name in ("apgd-ce", "fab") else ""), "linf:0.1")
    if name == "autoattack":
        chosen = attacks.make_attack("autoattack:steps=3,queries=10", "linf:0.1")
    examples = craft(model, data, chosen)
    assert not (examples.fooled_by_part[:3] >= 0).any()
    fooled = sum(examples.successes_per_part.values())
    assert fooled == int((examples.fooled_by_part >= 0).sum()) <= 5
    save_set(examples, tmp_path / "set.safetensors")
    assert load_set(tmp_path / "set.safetensors").successes_per_part == examples.successes_per_part


def test_an_evaluation_knows_the_clean_outcome_and_asks_nothing_twice():
    model, data = Brightest(), table(8, wrong=3)
    evaluation = evaluate(model, data, ["pgd-3"], settings=QUICK)
    assert sum(evaluation.records[1].fooled_by.values()) <= 5
    assert not any(evaluation.records[1].correct[:3])
    known, asked = (
        craft(model, data, "pgd-3", threat="linf:0.1", right=r) for r in (classify(model, data).correct, None)
    )
    assert known.model_images == asked.model_images - 8
    assert torch.equal(known.fooled_by_part, asked.fooled_by_part)


def test_errors_that_an_attack_makes_right_are_told():
    class Waves(Brightest):
        def forward(self, images):
            wave = (self.scale * images.mean((1, 2, 3)) * torch.pi / 0.1).cos()
            return torch.stack([wave, -wave], 1)

    images = torch.full((12, 3, 4, 4), 0.42)
    wrong = evaluate(Waves(), (images, [1] * 12), ["fgsm"], settings=QUICK)
    assert wrong.doubts == [
        "fgsm: 12 of 12 images are right under attack, more than the 0 clean ones: it moved errors to the right class, "
        "or the model is random; an image that was wrong before is not robust"
    ]
    assert evaluate(Waves(), (images, [0] * 12), ["fgsm"], settings=QUICK).doubts == []
    # Of some images too: this claim is settled by the first of them.
    labels = torch.ones(80, dtype=torch.int64)
    settled = EvaluationSettings(threat="linf:0.1", reliability=False, claim=">=0.5")
    settled = evaluate(Waves(), (images[:1].expand(80, 3, 4, 4), labels), ["fgsm"], settings=settled)
    assert 0 < settled.claim.records.count < 80
    assert "images are right under attack, more than the 0 clean ones" in settled.doubts[0]


def test_other_attacks_that_fool_what_was_wrong_before_prove_nothing():
    evidence = Evidence()
    evidence.add(GRADIENT, "pgd", [1, 2, 3], [1])
    evidence.add("black-box", "square", [1, 2, 3], [2, 3])
    evidence.wrong_before = {3}
    assert evidence.missed_by_gradients("black-box") == {"square": [2]}


def test_the_draw_that_decides_is_told():
    class Coin(Brightest):
        def forward(self, images):
            return super().forward(images) + 0.1 * torch.randn(len(images), CLASSES)

    torch.manual_seed(0)
    evaluation = evaluate(Coin(), table(32), ["pgd-3"], settings=QUICK)
    count = evaluation.right_again["pgd-3"]
    assert count > 0
    assert not any("no gradient" in doubt for doubt in evaluation.doubts)
    assert f"pgd-3 fooled {count} images that were right when they were evaluated again" in evaluation.doubts[0]
    assert evaluate(Brightest(), table(32), ["pgd-3"], settings=QUICK).right_again == {"pgd-3": 0}


def test_a_model_that_depends_on_its_batch_is_not_called_random():
    class ByMates(Brightest):
        def forward(self, images):
            return super().forward(images - images.mean(0, keepdim=True) + 0.5)

    settings = EvaluationSettings(threat="linf:0.05", batch_size=7)
    evaluation = evaluate(ByMates(), table(32), ["pgd-3"], settings=settings)
    again = Evaluation(
        name="net", rows=evaluation.rows, records=[], reliability=evaluation.reliability, right_again={"pgd-3": 2}
    )
    assert any(
        "pgd-3 fooled 2 images" in doubt and "depend on the other images of the batch" in doubt
        for doubt in again.doubts
    )
    assert not any("the model is random" in doubt for doubt in again.doubts)
    assert again.next_step is None or again.next_step.action != "random-autoattack"


@pytest.mark.parametrize(
    ("attack", "advice"),
    [
        ("pgd-3", "over draws, with eot_draws=10"),
        ("pgd-3:eot_draws=10", "over more draws, with eot_draws=20"),
        (attacks.PGD(Linf(8 / 255), steps=3, eot_draws=10), "over more draws, with eot_draws=20"),
        ("autoattack:version=rand,draws=3", "over more draws, with draws=6"),
        (attacks.AutoAttack(Linf(8 / 255), version="rand"), "over more draws, with draws=40"),
    ],
)
def test_the_advice_for_a_random_model_is_one_that_its_attack_takes(attack, advice):
    (chosen,) = choose_attacks(attack)
    row = Row(
        model="net",
        data="cifar10",
        split="test",
        attack=chosen.attack.name,
        protocol="white-box",
        threat="linf:8/255",
        settings=chosen.settings,
        accuracy=0.5,
        low=0.0,
        high=1.0,
        n=8,
    )
    clean = dataclasses.replace(row, attack="none", protocol="clean", settings={})
    for count, words in ((1, "1 image that was right when it was"), (2, "2 images that were right when they were")):
        again = {chosen.title: count}
        (doubt,) = Evaluation(name="net", rows=[clean, row], records=[], right_again=again).doubts
        assert f"{chosen.title} fooled {words} evaluated again: " in doubt
        assert doubt.endswith(f"average the attack {advice}")
    setting, _, number = advice.rpartition(" ")[2].partition("=")
    dataclasses.replace(chosen.attack, **{setting: int(number)})  # is not refused


def subject(model, data):
    return Subject(model, data.batch().images, data.labels(), data.ids)


@pytest.mark.parametrize(
    ("change", "others", "words"),
    [
        (lambda logits: logits.flip(1), {}, "fit the classes in another order; name them in order with --classes"),
        (lambda logits: logits.roll(1, 1), {"other": (torch.arange(32) + 1) % CLASSES}, "with column 'other' instead"),
        (lambda logits: 0 * logits, {}, "check the input scale"),
        (lambda logits: nn.functional.pad(0 * logits, (0, 90)), {}, "use 4 of the model's 94 outputs: map them"),
    ],
)
def test_the_cause_of_an_accuracy_at_chance_is_named(change, others, words):
    data = table(32, **others)
    looked = subject(Brightest(change), data)
    logits = looked.logits(looked.images)
    columns = {name: data.labels(name) for name in others}
    flag = chance(logits, looked.labels, logits.argmax(1) == looked.labels, columns)
    assert flag.name == "chance"
    assert words in flag.text
    fine = subject(Brightest(), data)
    assert chance(fine.logits(fine.images), fine.labels, torch.ones(32, dtype=torch.bool), columns) is None


def outcomes(*of_class):
    """Labels and which are right: (images, right ones) of each class."""
    labels = torch.cat([torch.full((count,), number) for number, (count, _) in enumerate(of_class)])
    correct = torch.cat([torch.arange(count) < right for count, right in of_class])
    return correct, labels


@pytest.mark.parametrize(
    "of_class",
    [
        ((90, 90), (10, 0)),
        ((9, 9), (2, 0)),
        ((60, 60), (20, 0), (20, 0)),
        # Guesses as frequent as the classes.
        ((90, 81), (10, 1)),
        ((171, 162), (19, 1)),
        ((254, 254), (2, 0)),
    ],
)
def test_an_accuracy_that_the_commonest_class_alone_reaches_is_chance(of_class):
    correct, labels = outcomes(*of_class)
    text = chance_text(correct, labels)
    assert text.startswith(f"{int(correct.sum())} of {len(labels)} clean images are right, ")
    assert f"and {of_class[0][0]} are where the commonest of {len(of_class)} classes is always guessed: check" in text


@pytest.mark.parametrize(
    "of_class",
    [
        ((90, 89), (10, 6)),
        ((230, 229), (26, 9)),
        ((254, 254), (2, 2)),
        ((255, 255), (1, 1)),
        ((60, 50), (20, 14), (20, 14)),
        # Of few images of many classes the commonest is so by chance.
        ((3, 1), (3, 2), (2, 1), (1, 1), (1, 0), (1, 0)),
        ((4, 2), (3, 1), (3, 2), (2, 1), (2, 1), (2, 1)),
    ],
)
def test_a_model_above_the_commonest_class_is_not_at_chance(of_class):
    assert chance_text(*outcomes(*of_class)) is None


@pytest.mark.parametrize(
    "of_class",
    [
        ((960, 864), (40, 38)),
        ((230, 196), (26, 22)),
        ((180, 171), (20, 9)),
        # Of many classes, half of each: more than the half that is wrong of the commonest speaks for no class.
        ((120, 60), (16, 8), (16, 8), (16, 8), (16, 8), (16, 8)),
    ],
)
def test_a_model_that_tells_the_classes_apart_is_not_at_chance_below_the_commonest_class(of_class):
    correct, labels = outcomes(*of_class)
    assert int(correct.sum()) <= of_class[0][0]
    assert chance_text(correct, labels) is None


def test_guesses_pass_for_a_model_in_five_percent_of_all_draws():
    """Guesses that ignore the image, by the exact share of draws of the labels' own frequencies and of others."""
    generator = torch.Generator().manual_seed(0)
    for shares in ((0.5, 0.5), (0.6, 0.4), (0.8, 0.2), (0.95, 0.05), (0.6, 0.2, 0.2), (0.25,) * 4):
        for sure in (0.5, 0.9, 1.0):
            passed = 0
            for _ in range(200):
                labels = torch.multinomial(torch.tensor(shares), 128, replacement=True, generator=generator)
                guess = torch.where(torch.rand(128, generator=generator) < sure, 0, labels.roll(1))
                passed += chance_text(guess == labels, labels) is None and len(labels.unique()) > 1
            assert passed <= 20, (shares, sure)


@pytest.mark.parametrize("count", [1, 2, 11])
def test_few_images_and_images_of_one_class_alone_say_nothing_of_chance(count):
    logits, labels = torch.zeros(count, 2), torch.zeros(count, dtype=torch.int64)
    assert chance(logits, labels, logits.argmax(1) == labels, {"other": 1 - labels}) is None


def test_a_constant_model_fits_no_other_order_and_no_other_column():
    labels = (torch.arange(64) % 8 == 0).long()
    logits = torch.zeros(64, 2)
    flag = chance(logits, labels, logits.argmax(1) == labels, {"other": labels.roll(1)})
    assert flag.share == 56 / 64
    assert "check the input scale" in flag.text


def test_images_in_0_to_255_are_known_by_trying():
    class Bytes(Brightest):
        def forward(self, images):
            return super().forward(images) * (images.amax((1, 2, 3)) > 2)[:, None] - torch.tensor([0.1, 0, 0, 0])

    looked = subject(Bytes(), table(32))
    correct = looked.logits(looked.images).argmax(1) == looked.labels
    before = looked.model_images
    assert before == len(looked.images)
    assert "give --scale 255" in missing_normalisation(looked, correct, 32).text
    assert looked.model_images > before
    assert looked.model_images % len(looked.images) == 0


def test_accuracy_at_chance_is_known_without_a_report():
    evaluation = evaluate(Brightest(lambda logits: logits.flip(1)), table(32), settings=QUICK)
    assert "which is chance for 4 classes" in evaluation.at_chance
    assert evaluation.doubts == [f"chance: {evaluation.at_chance}"]
    assert evaluation.next_step is None
    assert evaluate(Brightest(), table(32), settings=QUICK).at_chance is None


def test_outputs_beyond_the_classes_are_told_where_classes_have_names():
    data = table(8)
    named = Table.from_tensors(data.images, data.labels(), classes=["cat", "dog", "emu", "fox"])
    model = Brightest(lambda logits: nn.functional.pad(logits, (0, 6), value=-9.0))
    with pytest.warns(UnfoolWarning, match="the model has 10 outputs and tensors 4 classes"):
        assert evaluate(model, named, settings=QUICK).rows[0].accuracy == 1.0
    assert evaluate(model, data, settings=QUICK).rows[0].accuracy == 1.0
    with pytest.raises(
        ImagesError, match=r"label 3 is none of the model's 3 classes .*number labels that count from 1"
    ):
        evaluate(Brightest(lambda logits: logits[:, :3]), named, settings=QUICK)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Brightest(lambda logits: logits.sum(1)), ImagesError, "outputs"),
        (lambda: Brightest(lambda logits: logits.no_such), SpecError, r"failed at .*test_natural_errors.py:\d+: Attr"),
        (lambda: adapt(Brightest(lambda logits: logits.no_such)), SpecError, r"failed at .*test_natural_errors.py:\d+"),
    ],
)
def test_python_looks_at_a_model_as_the_command_line_does(make, error, words):
    with pytest.raises(error, match=words) as caught:
        evaluate(make(), table(8), ["pgd-2"], settings=QUICK)
    assert "\n" not in str(caught.value)


def test_an_error_on_the_way_back_names_the_model_s_own_line():
    with pytest.raises(SpecError, match=r"on the way back, failed at .*masking_layers.py:\d+: KeyError: 'mine'"):
        attacks.PGD(Linf(0.001), steps=2)(Brightest(FailsBackwards.apply), table(8).batch().images, table(8).labels())


@pytest.mark.parametrize(
    ("attack", "options"),
    [
        (attacks.PGD, {"steps": 3, "step_size": 2.0}),
        (attacks.PGD, {"steps": 3, "step_size": "16/255"}),
        (attacks.FGSM, {"step_size": 0.1}),
        (attacks.FGSM, {"step_size": 0.1, "random_start": True}),
    ],
)
def test_steps_beyond_the_ball_are_told_in_pixel_units(attack, options):
    with pytest.warns(UnfoolWarning, match=r"beyond eps 0.03137.*in pixel units, such as 2/255"):
        attack(Linf(8 / 255), **options).check_runs_on(Brightest())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attacks.FGSM(Linf(8 / 255), step_size=10 / 255, random_start=True).check_runs_on(Brightest())
        attacks.PGD(Linf(8 / 255), steps=1, step_size=8 / 255).check_runs_on(Brightest())
        attacks.PGD(Linf(8 / 255), steps=3, step_size=8 / 255).check_runs_on(Brightest())
        attacks.FGSM(Linf(8 / 255), step_size=8 / 255).check_runs_on(Brightest())
        attacks.FGSM(Linf(8 / 255), step_size=16 / 255, random_start=True).check_runs_on(Brightest())
