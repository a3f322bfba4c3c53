"""``unfool audit``: what it says of a reversal is what the library finds, and how it refuses."""

import json

import pytest
from PIL import Image

from unfool import audit, load_set, open_run, open_table
from unfool.core.streams import Streams
from unfool.defenses import make_defense

SETTINGS = "temperature=0.1,bank=32,drawn=16,steps=2,eps=16/255"
REVERSE = f"reverse:task=contrast,{SETTINGS}"


def test_a_set_is_audited_as_the_library_does_it(cli, parity, tmp_path):
    examples = tmp_path / "set.safetensors"
    assert cli("attack", parity, "--attack", "pgd-3", "--images", "12", "--out", examples).code == 0
    out = tmp_path / "audit.json"
    told = cli("audit", parity, "--defense", REVERSE, "--on", examples, "--out", out, "--json")
    assert (told.code, told.err) == (0, ""), told.err
    network, train = open_run(parity).network, open_table("digits", "train")
    classes = {name: len(names) for name, names in train.classes.items()}
    defense = make_defense(REVERSE, network, classes, data=train, streams=Streams(0).named("defense"))
    expected = audit(defense, open_table("digits", "test"), load_set(examples)).to_json()
    found = json.loads(told.out)
    assert found == json.loads(out.read_text()) == {"defense": REVERSE, **expected}


@pytest.mark.parametrize(
    ("option", "value"),
    [("--attack", "pgd-10"), ("--threat", "l2:1"), ("--norm", "l2"), ("--precision", "bf16"), ("--images", "20")],
)
def test_what_a_set_leaves_without_effect_is_refused(cli, parity, option, value):
    told = cli("audit", parity, "--on", "set.safetensors", option, value)
    assert told.code == 2
    assert f"--on set.safetensors audits all examples of that set, so {option} does nothing" in told.complaint()


def test_a_set_of_another_network_is_named_transfer(cli, run, parity, tmp_path):
    examples = tmp_path / "set.safetensors"
    crafted = cli("attack", run, "--attack", "fgsm", "--images", "6", "--column", "parity", "--out", examples)
    assert crafted.code == 0, crafted.err
    told = cli("audit", parity, "--defense", REVERSE, "--on", examples)
    assert told.code == 0, told.err
    assert told.out.splitlines()[0].endswith("under fgsm at linf:8/255 (TRANSFER):")
    assert "The attacked images are TRANSFER" in told.out


def test_without_a_set_images_are_crafted_on_the_bare_network(cli, parity):
    told = cli(
        "audit", parity, "--attack", "pgd-3", "--images", "6", "--preset", "mao2021", "--defense", "reverse:steps=1"
    )
    assert told.code == 0, told.err
    assert "batch-mates" in told.err
    first, auroc, *_ = told.out.splitlines()
    assert first.startswith("reverse:steps=1,preset=mao2021 before ")
    assert first.endswith("under pgd-3 at linf:8/255:")
    assert "AUROC" in auroc
    assert "6 images" in auroc
    assert "test-time augmentation" in told.out


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["--attack", "pdg-3"], ["did you mean 'pgd'?"]),
        (["--preset", "mao2012"], ["did you mean 'mao2021'?"]),
        (["--preset", "mao2021", "--defense", "reverse:preset=mao2021"], ["each key once"]),
    ],
)
def test_misuse_is_one_line(cli, parity, arguments, pieces):
    told = cli("audit", parity, "--images", "5", *arguments)
    complaint = told.complaint()
    assert told.code == 2, complaint
    for piece in pieces:
        assert piece in complaint


def test_a_set_of_other_images_is_refused(cli, parity, tmp_path):
    examples = tmp_path / "set.safetensors"
    cli("attack", parity, "--attack", "fgsm", "--images", "4", "--out", examples)
    for split in ("train", "test"):
        for name in ("even", "odd"):
            (tmp_path / "other" / split / name).mkdir(parents=True)
            shade = 40 * len(list((tmp_path / "other").rglob("*.png")))  # images that train and test do not share
            Image.new("RGB", (32, 32), (shade, 0, 0)).save(tmp_path / "other" / split / name / "0.png")
    told = cli("audit", parity, "--defense", REVERSE, "--on", examples, "--data", f"folder:{tmp_path / 'other'}")
    complaint = told.complaint()
    assert told.code == 3, complaint
    assert "holds digits test images" in complaint
    assert complaint.endswith("give --data digits")
