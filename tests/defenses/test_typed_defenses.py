"""Defenses as objects with keywords: the same ones that text builds, with what a head determines taken from it."""

import pytest
import torch
from small_defenses import CLASSES, SMALL, make_images, make_network, make_table

from unfool import defenses
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation.identity import identity
from unfool.tasks.contrast import Contrast

TASK = Contrast(Contrast.Settings(negatives="bank", **SMALL))
STREAMS = Streams(3).named("defense")


def from_text(text, network, data=None, streams=STREAMS):
    return defenses.make_defense(text, network, CLASSES, data=data or make_table(), streams=streams)


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("", {}),
        ("steps=3,eps=8/255", {"steps": 3, "threat": "linf:8/255"}),
        ("steps=3,eps=8/255", {"steps": 3, "threat": ThreatModel.parse("linf:8/255")}),
        (
            "norm=l2,eps=0.5,steps=2,step_size=0.3,start=image,keep=best,draws=2,redraw=false,precision=bf16",
            {
                "threat": "l2:0.5",
                "steps": 2,
                "step_size": 0.3,
                "start": "image",
                "keep": "best",
                "draws": 2,
                "redraw": False,
                "precision": "bf16",
            },
        ),
    ],
)
def test_text_and_keywords_build_the_same_defense(text, keywords):
    """Down to every bit that counts towards a system's identity: weights, bank, settings."""
    network = make_network()
    task = ",".join(f"{key}={value}" for key, value in SMALL.items())
    written = from_text(f"reverse:task=contrast,{task},{text}".rstrip(","), network)
    built = defenses.Reverse(network, TASK, calibrate_on=make_table(), seed=3, **keywords)
    assert identity(built) == identity(written)
    assert torch.equal(built(make_images()), written(make_images()))
    assert identity(defenses.Reverse(network, TASK, calibrate_on=make_table(), seed=4, **keywords)) != identity(built)


def test_a_gate_of_keywords_is_the_one_of_text():
    network, table = make_network(), make_table(140)
    task = ",".join(f"{key}={value}" for key, value in SMALL.items())
    written = from_text(f"gate:rate=0.05,action=abstain,steps=2,{task}", network, table)
    clean = table.sample(70, STREAMS.named("gate"))
    rest = table.subset(~torch.isin(table.ids, clean.ids))
    inner = defenses.Reverse(network, TASK, steps=2, calibrate_on=rest, seed=3)
    built = defenses.Gate.calibrated(inner, clean, rate=0.05, action="abstain")
    assert built.threshold == written.threshold
    assert identity(built) == identity(written)
    assert torch.equal(built(make_images()), written(make_images()))


def test_a_name_takes_the_settings_of_its_reversal_and_its_head():
    network = make_network()
    reverse = defenses.Reverse(network, "contrast", steps=2)
    settings = reverse.task.settings
    assert (settings.size, settings.hidden, settings.negatives) == (5, 8, "bank")
    assert identity(reverse) == identity(defenses.Reverse(network, steps=2))
    assert reverse.task.head is network.heads["contrast"]


def test_a_task_that_is_bound_stays_as_it_is_and_another_is_bound_anew():
    network = make_network()
    first = defenses.Reverse(network, TASK, steps=2, calibrate_on=make_table())
    assert defenses.Reverse(network, first.task, steps=3).task is first.task
    assert first.task is not TASK
    assert not TASK.bank.any()
    assert first.task.settings.size == 5
    for size in (7, 200):  # below the default, and above
        with pytest.raises(SpecError, match="leave its sizes out"):
            defenses.Reverse(network, Contrast(Contrast.Settings(size=size)))
    with pytest.raises(SpecError, match="no head 'other' for task 'contrast'"):
        defenses.Reverse(network, TASK, head="other")
    del network.heads["contrast"]
    with pytest.raises(SpecError, match="no head 'contrast' for task 'contrast'"):
        defenses.Reverse(network, TASK)
    network = make_network()
    with pytest.raises(DataError, match="bank"):
        defenses.Reverse(network, "contrast", calibrate_on=make_table(8))


def test_names_are_short():
    reverse = defenses.Reverse(make_network(), TASK, threat="l2:0.5", steps=2, calibrate_on=make_table())
    assert repr(reverse) == "Reverse(Network, Contrast, l2:0.5, steps=2)"
    assert repr(defenses.Gate(reverse, 0.25)) == f"Gate({reverse!r}, reverse above 0.25)"


class Doubled(defenses.Defense):
    """Two purified images for each; no pretext loss."""

    draws = 2

    def __init__(self, network):
        super().__init__()
        self.network = network

    @property
    def classifier(self):
        return self.network

    @property
    def images_per_prediction(self):
        return 2

    def purified_images(self, images, ids=None, streams=None, differentiable=False):
        return torch.cat([images, 1 - images])


class Dark(Doubled):
    """The same, with a loss of brightness alone."""

    class _Brightness:
        images_per_loss = 0

        def __call__(self, images, ids, streams):
            return images.flatten(1).mean(1)

    pretext = _Brightness()


def test_a_gate_stands_before_any_defense_with_a_pretext_loss():
    network, images = make_network(), make_images()
    losses = images.flatten(1).mean(1)
    gate = defenses.Gate(Dark(network), float(losses.median()))
    acts = losses > losses.median()
    assert 0 < int(acts.sum()) < len(images)
    with torch.no_grad():
        plain, both = network(images), (network(images) + network(1 - images)) / 2
    assert torch.allclose(gate(images), torch.where(acts[:, None], both, plain), atol=1e-5)
    assert gate.images_per_prediction == 2
    assert gate.purifier is gate.defense
    with pytest.raises(SpecError, match="no pretext loss for a gate"):
        defenses.Gate(Doubled(network), 0.5)


def test_what_a_defense_does_not_define_is_named():
    defense = defenses.Defense()
    for use, words in (
        (lambda: defense.classifier, "define classifier"),
        (lambda: defense.images_per_prediction, "define images_per_prediction"),
        (lambda: defense.purified_images(make_images()), "define purified_images"),
        (lambda: defense.objective(torch.zeros(2, dtype=torch.int64), Streams(0)), "define pretext"),
    ):
        with pytest.raises(SpecError, match=words):
            use()


def test_a_function_that_builds_no_defense_is_named(monkeypatch):
    monkeypatch.setitem(defenses.DEFENSES._items, "odd", lambda request: request.network)
    with pytest.raises(SpecError, match="defense 'odd' was built as a Network; return a Defense from its function"):
        defenses.make_defense("odd", make_network())


class Rounded(torch.nn.Module):
    """Somebody's own defense, which says nothing of batches."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def purify(self, images, ids=None, streams=None):
        return defenses.Purified(images=(images * 15).round() / 15)

    def forward(self, images):
        return self.network(self.purify(images).images)


def test_a_module_of_one_s_own_depends_on_its_batch_only_if_it_says_so():
    module = Rounded(make_network())
    assert defenses.as_defense(module).batch_dependent is False
    module.batch_dependent = True
    assert defenses.as_defense(module).batch_dependent is True
