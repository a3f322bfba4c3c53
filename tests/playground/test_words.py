"""What the playground says, and what it shows, of outcomes that are written down here."""

import re

import gradio as gr
import pytest
import torch

from unfool import Linf
from unfool.data.as_table import as_table
from unfool.playground import Playground, PlaygroundSystem
from unfool.playground.attack import AttackOutcome
from unfool.playground.page import built
from unfool.playground.pictures import Picture
from unfool.playground.reversal import GateWord, ReversalOutcome
from unfool.playground.systems import Seen
from unfool.playground.view import attack_view, clean_view, rivals, shown_classes
from unfool.playground.words import percent, say, say_clean, say_gate, with_article

IMAGE = torch.full((3, 32, 32), 0.5)


def seen(**shares: float) -> Seen:
    """An image whose class probabilities are those of ``p3=0.9``, the rest spread evenly."""
    probabilities = torch.full((10,), (1 - sum(shares.values())) / (10 - len(shares)))
    for name, share in shares.items():
        probabilities[int(name[1:])] = share
    return Seen(image=IMAGE, probabilities=probabilities)


def outcome(clean: Seen, attacked: Seen, label: int = 7, **more: object) -> AttackOutcome:
    values = {"known": True, "crafted_on": "zoo:digits", "borrowed": False, "distance": 8 / 255, **more}
    path = torch.stack([clean.probabilities, attacked.probabilities])
    return AttackOutcome(
        label=label, threat=Linf(8 / 255), steps=1, clean=clean, attacked=attacked, path=path, **values
    )


def test_one_sentence_says_what_happened(play):
    system = play.system("zoo:digits")
    fooled = outcome(seen(p7=0.98), seen(p3=0.991))
    assert say(system, fooled) == "This image was a 7 (98 %); under 8/255 in linf the network sees a 3 (99 %)."
    reversal = ReversalOutcome(task="contrast", reversed=seen(p7=0.61), losses=[3.0, 1.0], gate=None)
    assert say(system, fooled, reversal).endswith("sees a 3 (99 %). Reversed: 7 (61 %).")
    safe = outcome(seen(p8=0.9), seen(p8=0.6), label=8, borrowed=True, crafted_on="zoo:digits-robust")
    assert say(system, safe) == (
        "This image was an 8 (90 %); on an example made for zoo:digits-robust (8/255 in linf) the network still sees "
        "an 8 (60 %)."
    )
    missed = outcome(seen(p1=0.6), seen(p1=0.9))
    assert say(system, missed).startswith("This image is a 7, and the network saw a 1 (60 %); under")
    unknown = outcome(seen(p1=0.6), seen(p2=0.9), label=1, known=False)
    assert say(system, unknown).startswith("The network saw a 1 (60 %); under")
    assert say_clean(system, seen(p1=0.6), 1) == "The network sees a 1 (60 %)."
    assert say_clean(system, seen(p1=0.6), 7) == "This image is a 7, and the network sees a 1 (60 %) before any attack."


@pytest.mark.parametrize(
    ("clean", "attacked", "said"),
    [
        (1.0, 2.0, "The gate lets both images pass: .* lie below its threshold of 3.00."),
        (4.0, 5.0, "The gate stops both images: .* lie above its threshold of 3.00."),
        (1.0, 5.0, r"stops the attacked image \(pretext loss 5.00, above .*\) and lets the clean one pass \(1.00\)"),
        (4.0, 2.0, r"lets the attacked image pass \(pretext loss 2.00, below .*\) and stops the clean one \(4.00\)"),
    ],
)
def test_the_gates_word(clean, attacked, said):
    assert re.search(said, say_gate(GateWord(clean=clean, attacked=attacked, threshold=3.0)))


def test_small_words():
    assert [with_article(name) for name in ("7", "8", "11", "owl", "dog")] == [
        "a 7",
        "an 8",
        "an 11",
        "an owl",
        "a dog",
    ]
    shares = (0.0, 0.614, 0.997, 0.9999, 1.0)
    assert [percent(share) for share in shares] == ["0 %", "61 %", "over 99 %", "over 99 %", "100 %"]


def test_the_page_shows_the_labels_the_bars_and_the_curve(play):
    system = play.system("zoo:digits")
    reversal = ReversalOutcome(task="contrast", reversed=seen(p7=0.61), losses=[3.0, 1.0], gate=None)
    view = attack_view(system, outcome(seen(p7=0.98), seen(p3=0.99)), reversal)
    assert re.findall(r"<b>(\d)</b>", view.pictures) == ["7", "3", "7"]
    assert re.findall(r'<figure class="(\w*)">', view.pictures) == ["right", "wrong", "", "right"]
    assert view.pictures.count("data:image/png") == 4
    for words in ("What the network sees", "Step by step", "The reversal", "pretext loss", "98 %", "99 %", "61 %"):
        assert words in view.charts


def test_names_from_outside_are_escaped(play):
    system = play.system("natural")
    picture = Picture(key="upload", words="<script>", image=IMAGE)
    view = clean_view(system, picture, Seen(image=IMAGE, probabilities=torch.tensor([0.1, 0.8, 0.1])))
    assert "<b>dog" not in view.pictures + view.charts
    assert "&lt;b&gt;dog" in view.pictures
    assert re.findall(r'<figure class="(\w*)">', view.pictures) == [""]  # nobody knows what it shows


def test_the_strongest_other_class_and_the_classes_that_are_shown():
    path = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.1, 0.6]])
    own, rival = rivals(path, 0)
    assert own == pytest.approx([0.7, 0.3])
    assert rival == pytest.approx([0.2, 0.6])
    few = Seen(image=IMAGE, probabilities=torch.tensor([0.001, 0.9, 0.098, 0.001]))
    assert shown_classes([few]) == [1, 2]
    many = Seen(image=IMAGE, probabilities=torch.full((1000,), 0.001).index_fill(0, torch.tensor([500]), 0.001))
    assert shown_classes([many, few]) == [1, 2]


def test_no_name_reaches_what_gradio_runs_as_script():
    names = ["${alert(1)}", "`+alert(1)+`", "\\`"]
    table = as_table((torch.rand(3, 3, 32, 32), [0, 1, 2]), split="test")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3))
    system = PlaygroundSystem(name="own", network=network, classes=names, shape=(3, 32, 32), examples=table)
    blocks = built(Playground({"own": lambda: system}))
    shown = [block for block in blocks.blocks.values() if isinstance(block, gr.HTML)]
    assert {block.html_template for block in shown} == {"${value}", "${markup}"}
    [picker] = [block for block in shown if block.html_template == "${markup}"]
    assert re.findall('title="([^"]*)"', picker.props["markup"])[:3] == names
