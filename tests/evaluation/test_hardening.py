"""Hardening buys robustness on the same images, says what it cost, and stays within the time it was given."""

import copy
import json
import shutil
import sys
import time
from dataclasses import replace

import pytest
import torch
import torch._dynamo  # an optimizer's first step would import it
from safetensors.torch import load_file
from torch import nn

from unfool.core.errors import DataError, OutputError, SpecError, WeightsError
from unfool.data.table import Table
from unfool.evaluation.evaluate import evaluate
from unfool.evaluation.hardening import HardenSettings, harden
from unfool.evaluation.hardening.plan import Plan, read_plan
from unfool.training.processes import make_accelerator


def brittle():
    """Reads a loud but easily moved channel and a quiet, steady one; hardening must shift its trust."""
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[-60.0, -2.0, 0.0], [60.0, 2.0, 0.0]]))
        module[2].bias.copy_(torch.tensor([31.0, -31.0]))
    return module


def pictures(count, seed):
    """Channel 0 tells the class by 2/255, channel 1 by 60/255; both are clean evidence, one is robust."""
    labels = torch.arange(count) % 2
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 4, 4, generator=generator) * 0.02 + 0.49
    sign = (2.0 * labels - 1)[:, None, None]
    images[:, 0] += sign * 2 / 255
    images[:, 1] += sign * 60 / 255
    return Table.from_tensors(images, labels, name="pictures", split="train" if seed == 0 else "test")


PLAN = {"threat": "linf:8/255", "batch_size": 32, "augmentation": "none"}
SETTINGS = HardenSettings(**PLAN, steps=60, images=64, attack="pgd-5", learning_rate=0.5, ema=0.9)


def test_hardening_buys_robustness_and_says_so(tmp_path):
    module = brittle().train()
    before = copy.deepcopy(module.state_dict())
    hardened = harden(module, pictures(64, 0), pictures(64, 1), tmp_path / "run", settings=SETTINGS)
    attacked = "pgd-5 at linf:8/255"
    rows = {("before", row.attack): row.accuracy for row in hardened.before.rows}
    rows |= {("after", row.attack): row.accuracy for row in hardened.after.rows}
    assert rows["before", "none"] == rows["after", "none"] == 1.0
    assert rows["before", "pgd-5"] < 0.2
    assert rows["after", "pgd-5"] > 0.8
    assert hardened.comparisons[attacked].verdict.startswith("the first model is more accurate")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.training
    fresh = brittle()
    fresh.load_state_dict(load_file(hardened.weights))
    images = pictures(64, 1).batch().images
    assert torch.allclose(fresh(images), hardened.run.network(images), atol=1e-5)
    stored = json.loads((tmp_path / "run" / "results" / "hardened.json").read_text())
    assert stored["comparisons"][attacked] == hardened.comparisons[attacked].verdict
    assert not {"before.state", "after.state"} & {path.name for path in (tmp_path / "run").iterdir()}


def again(folder, monkeypatch, **changes):
    """What the same call gives, and which attacks it evaluated under anew."""
    attacks = []

    def counted(model, images, attack, **settings):
        attacks.append(attack)
        return evaluate(model, images, attack, **settings)

    monkeypatch.setattr(sys.modules["unfool.evaluation.hardening.harden"], "evaluate", counted)
    return harden(brittle(), pictures(64, 0), pictures(64, 1), folder, settings=replace(SETTINGS, **changes)), attacks


def test_a_call_after_a_kill_repeats_no_evaluation_that_is_finished(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    first, attacks = again(folder, monkeypatch, steps=4, images=8)
    assert attacks == ["pgd-5", "pgd-5"]
    # Killed before it removes what an evaluation stored, before it writes the whole result, and after the end.
    left = folder / "after.state" / "pgd-5_linf_8_255"
    left.mkdir(parents=True)
    (folder / "results" / "hardened.json").unlink()
    for _ in range(2):
        second, attacks = again(folder, monkeypatch, steps=4, images=8)
        assert not attacks
        assert not left.parent.exists()
        ours, theirs = ({**each.to_json(), "seconds": each.seconds["after"]} for each in (first, second))
        assert (
            ours
            == theirs
            == {**json.loads((folder / "results" / "hardened.json").read_text()), "seconds": first.seconds["after"]}
        )
        assert second.after.records == first.after.records
        assert second.after.doubts == first.after.doubts
        assert torch.equal(second.after.pictures["pgd-5"].adversarial, first.after.pictures["pgd-5"].adversarial)
        assert second.after.next_step == first.after.next_step
    # The file is of other weights, or other figures are asked for: evaluated anew.
    shutil.copy(folder / "results" / "before.safetensors", folder / "results" / "after.safetensors")
    assert again(folder, monkeypatch, steps=4, attack="fgsm", images=8)[1] == ["fgsm", "fgsm"]
    (folder / "results" / "before.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"before\.safetensors"):
        again(folder, monkeypatch, steps=4, attack="fgsm", images=8)


def test_the_whole_ends_in_time_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    # Seconds of CPU, so that a busy machine changes nothing; what is imported first counts once, and not here.
    make_accelerator(torch.device("cpu"))
    monkeypatch.setattr(time, "monotonic", time.process_time)
    seconds = 2.4
    settings = HardenSettings(**PLAN, minutes=seconds / 60, attack="fgsm")
    tables, folder = (pictures(640, 0), pictures(60, 1)), tmp_path / "run"
    shown = []

    def stop(*values):
        shown.append(values)
        if "stage 1/1" in values[3]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harden(brittle(), *tables, folder, settings=settings, progress=stop)
    assert {path.name for path in folder.iterdir()} >= {"plan.json", "config.yaml", "results"}
    assert [path.name for path in (folder / "results").iterdir()] == ["before.safetensors"]
    assert not list(folder.glob("*.safetensors"))
    stopped = time.monotonic()
    hardened = harden(brittle(), *tables, folder, settings=settings, progress=lambda *values: shown.append(values))
    # What was done before it was stopped is not done again, but for the first steps of training.
    assert time.monotonic() - stopped < seconds * 1.1
    assert hardened.steps >= 20
    assert hardened.seconds["training"] > 0.3 * seconds or hardened.steps == 60 * 20
    assert hardened.before.rows[0].n >= 50
    assert all(0 <= done < total == round(seconds) for _, done, total, *_ in shown)
    assert not {"before.state", "after.state"} & {path.name for path in folder.iterdir()}
    other = HardenSettings(**PLAN, minutes=2, attack="fgsm")
    with pytest.raises(OutputError, match=r"begun with 0\.04 minutes, not 2"):
        harden(brittle(), *tables, folder, settings=other)


@pytest.mark.parametrize("done", [None, "before.state", "results/before.safetensors", "config.yaml"])
def test_a_plan_by_which_nothing_was_done_blocks_no_other(tmp_path, done):
    plan = Plan(minutes=3.0, images=50, reliability=True)
    plan.save(tmp_path)
    assert read_plan(tmp_path, 3.0) == plan
    if done is None:
        assert read_plan(tmp_path, 5.0) is None
    else:
        (tmp_path / done).parent.mkdir(exist_ok=True)
        (tmp_path / done).touch()
        with pytest.raises(OutputError, match="begun with 3 minutes, not 5"):
            read_plan(tmp_path, 5.0)


def test_too_little_time_and_missing_labels_are_one_line(tmp_path):
    short = HardenSettings(minutes=1e-6, images=4, attack="fgsm", augmentation="none")
    with pytest.raises(SpecError, match=r"too few here.*give at least \d"):
        harden(brittle(), pictures(64, 0), pictures(16, 1), tmp_path / "run", settings=short)
    with pytest.raises(DataError, match="needs them; name their column"):
        harden(brittle(), Table.from_tensors(torch.rand(4, 3, 4, 4)), pictures(16, 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
