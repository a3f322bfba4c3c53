"""The benchmark of minimum-norm attacks: who its rivals are, what they may cost, and what it says of missing ones."""

import json
import sys
import warnings

import pytest
import torch

from unfool import load_network, open_table
from unfool.core.streams import Streams

RIVALS = {
    "l2": {"foolbox-fmn", "foolbox-ddn", "foolbox-deepfool", "foolbox-carlini-wagner"},
    "linf": {"foolbox-fmn", "foolbox-deepfool"},
    "l1": {"foolbox-fmn", "foolbox-ead"},
    "l0": {"foolbox-fmn"},
}


@pytest.mark.parametrize("steps", [60, 77])
@pytest.mark.parametrize("norm", RIVALS)
def test_attacks_of_foolbox_stay_within_the_passes_and_find_examples(program, norm, steps):
    pytest.importorskip("foolbox")
    benchmark, rivals = program("minimum_norm"), program("minimum_norm_rivals")
    network, table = load_network("zoo:digits-robust").eval(), open_table("digits", "test").sample(6, Streams(0))
    images, labels = table.batch().images, table.labels()
    runs = rivals.foolbox_attacks(norm)
    optional = set() if rivals.BRENDEL_BETHGE in rivals.missing_rivals() else {rivals.BRENDEL_BETHGE}
    assert set(runs) == RIVALS[norm] | optional
    for name, run in runs.items():
        counted = benchmark.Counted(network).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            changed = run(counted, images, labels, steps)
        passes = (counted.forwards + counted.backwards) / len(images)
        # Nor does any leave most of its passes unused, but for DeepFool, which ends where every image is fooled.
        assert passes <= 2 * steps, name
        assert "deepfool" in name or passes > 1.6 * steps, name
        lengths = benchmark.distances(network, images, labels, changed, norm)
        # In l0 foolbox's FMN reaches few images in so few steps.
        assert sum(length is not None for length in lengths) >= (1 if norm == "l0" else 4), name


@pytest.mark.parametrize(
    ("absent", "missing"),
    [
        ({"adv_lib"}, ["adv-lib"]),
        ({"adv_lib", "foolbox"}, ["foolbox", "foolbox-brendel-bethge", "adv-lib"]),
        (set(), []),
    ],
)
def test_missing_rivals_are_named(program, monkeypatch, absent, missing):
    rivals = program("minimum_norm_rivals")
    monkeypatch.setattr(rivals, "_package", lambda name: None if name in absent else "folder")
    monkeypatch.setattr(rivals, "_has_brendel_bethge", lambda: True)
    assert rivals.missing_rivals() == missing
    monkeypatch.setattr(rivals, "_has_brendel_bethge", lambda: False)
    assert "foolbox-brendel-bethge" in rivals.missing_rivals()


@pytest.mark.parametrize(
    ("missing", "options", "code"),
    [
        ([], [], 0),
        (["adv-lib"], [], 1),
        (["adv-lib"], ["--without-adv-lib"], 0),
        (["foolbox", "adv-lib"], ["--without-adv-lib"], 1),
        (["foolbox-brendel-bethge"], [], 0),
    ],
)
def test_an_envelope_that_is_not_whole_is_a_failure(program, monkeypatch, tmp_path, capsys, missing, options, code):
    benchmark = program("minimum_norm")
    for name, stub in {
        "missing_rivals": lambda: missing,
        "foolbox_attacks": lambda norm: {},
        "published_attacks": lambda norm: {},
        "our_attack": lambda text, norm: lambda network, images, labels, steps: 1 - images,
    }.items():
        monkeypatch.setattr(benchmark, name, stub)
    usual = ["--json", "--images", "4", "--network", "digits", "--norm", "l2", "--state", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["minimum_norm.py", *usual, *options])
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        assert benchmark.main() == code
    torch.set_num_threads(threads)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["missing"] == missing
    for name in missing:
        assert f"missing from the envelope: {name}; pip install" in printed.err


def test_too_few_steps_are_refused(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["minimum_norm.py", "--steps", "29"])
    with pytest.raises(SystemExit) as refused:
        program("minimum_norm").main()
    assert refused.value.code == 2
    assert "--steps 29 is not allowed; give 30 or more" in capsys.readouterr().err
