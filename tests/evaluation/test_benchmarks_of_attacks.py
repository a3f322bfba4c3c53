"""The benchmarks of attacks: what they keep and for how long, what they compare, and what their exit code says."""

import argparse
import json
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_systems import make_network, table_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RATIOS = {"passes_forward": 0.05, "passes_backward": 0.1, "time_fp32": 0.1, "time_bf16": 0.05}


# What is kept


def test_any_change_of_the_package_or_of_the_benchmark_is_other_code(program, tmp_path):
    code = program("kept_results").code
    package, own = tmp_path / "package", tmp_path / "own.py"
    for name in ("attacks/pgd.py", "core/geometry.py", "models/surrogates/inner.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("before = 1\n")
    own.write_text("before = 1\n")
    codes = [code(own, package=package)]
    for path in (package / "core/geometry.py", package / "models/surrogates/inner.py", own):
        path.write_text("after = 2\n")
        codes.append(code(own, package=package))
    (package / "models/surrogates/inner.py").rename(package / "models/surrogates/outer.py")
    codes.append(code(own, package=package))
    assert len(set(codes)) == len(codes)
    assert code(own, package=package) == codes[-1]


def test_an_attack_at_minimum_norm_is_measured_anew_by_other_code_and_on_another_network(
    program, tmp_path, monkeypatch
):
    benchmark, runs = program("minimum_norm"), []

    def run(network, images, labels, steps):
        runs.append(steps)
        return images

    def measured(network, images):
        arguments = argparse.Namespace(state=tmp_path, steps=7)
        labels = torch.zeros(len(images), dtype=torch.int64)
        return benchmark.measured("still", "l2", run, (("tiny", network), images, labels), arguments)

    images = torch.rand(4, 3, 16, 16)
    first = measured(make_network(), images)
    assert len(first["distances"]) == 4
    assert measured(make_network(), images) == first
    assert len(runs) == 1
    measured(make_network(1), images)
    measured(make_network(1), images.flip(0))
    monkeypatch.setattr(benchmark, "CODE", "other")
    measured(make_network(1), images.flip(0))
    assert len(runs) == 4


def test_what_is_kept_of_a_masked_network_is_of_one_code(program, subject, monkeypatch):
    benchmark, made = program("masked_set"), []

    def makes(name, values):
        return lambda subject: made.append(name) or {"accuracy": 0.0, "remark": "escalated", "seconds": 0.0, **values}

    for name in ("known", "first_look", "lean"):
        monkeypatch.setattr(benchmark, name, makes(name, {}))
    arguments = argparse.Namespace(networks=None, around="tiny", images=24, json=True)
    for code in ("first", "first", "other"):
        monkeypatch.setattr(benchmark, "CODE", code)
        assert benchmark.measure_masked(arguments, {"tiny": lambda: subject}) == 0
    assert made == ["known", "first_look", "lean"] * 2


def test_lean_goes_on_where_it_was_stopped_and_counts_all_of_it(program, subject, monkeypatch):
    lean_subjects = program("lean_subjects")
    whole = subject.lean("fp32")
    for path in subject.kept.iterdir():
        path.unlink()
    craft = lean_subjects.craft

    def stopped(*arguments, progress, **settings):
        def tell(*values):
            progress(*values)
            if values[0] == "reliability":
                raise KeyboardInterrupt

        return craft(*arguments, progress=tell, **settings)

    monkeypatch.setattr(lean_subjects, "craft", stopped)
    with pytest.raises(KeyboardInterrupt):
        subject.lean("fp32")
    tally = next(path for path in subject.kept.iterdir() if path.suffix == ".json")
    before = json.loads(tally.read_text())
    assert 0 < before["forward"] < whole["forward"]

    monkeypatch.setattr(lean_subjects, "craft", craft)
    rest, counted = [], lean_subjects.counted

    @contextmanager
    def recorded():
        with counted() as passes:
            rest.append(passes)
            yield passes

    monkeypatch.setattr(lean_subjects, "counted", recorded)
    again = subject.lean("fp32")
    assert rest[0].forward < whole["forward"], "what was finished is not done again"
    assert again["forward"] == before["forward"] + rest[0].forward
    assert (again["fooled"], again["remark"]) == (whole["fooled"], whole["remark"])
    for name in ("forward", "backward"):
        assert whole[name] <= again[name] < whole[name] + before[name], name
    assert again["seconds"] > before["seconds"]
    assert [path.name for path in subject.kept.iterdir()] == ["tiny-lean-fp32-24.json"]
    monkeypatch.setattr(lean_subjects, "craft", lambda *_, **__: pytest.fail("it was kept"))
    assert subject.lean("fp32") == again


# What is compared


def test_both_attacks_take_turns(program):
    turns = []

    def done(name, ids):
        turns.append(name)
        spent = {"forward": 10, "backward": 10, "seconds": 1.0}
        return {**spent, "remark": "", "ids": list(ids), "fooled": [True] * len(ids)}

    subject = SimpleNamespace(
        table=range(256),
        adversarial=True,
        lean=lambda precision: done(precision, range(256)),
        reference=lambda number: done(number, range(64 * number, 64 * number + 64)),
    )
    figures = program("lean").measured(subject)
    assert turns == [0, 1, "fp32", 2, 3, "bf16"]
    assert figures["adversarially_trained"] is True


def figures_of(*, networks=("resnet20", *"012345678"), adversarial=5, images=256, lean=49.0, standing=50.0):
    """Figures of networks on which all bounds are met."""
    values = {}
    for place, name in enumerate(networks):
        accuracy = {"pyautoattack": 50.0, "fp32": lean if place == 3 else 50.0, "bf16": 50.0}
        if place == 0:
            accuracy = dict.fromkeys(accuracy, standing)
        difference = accuracy["fp32"] - accuracy["pyautoattack"]
        values[name] = {**RATIOS, "accuracy": accuracy, "accuracy_difference": difference, "escalated": None}
        values[name] |= {"images": images, "adversarially_trained": place < adversarial}
    return values


def test_a_comparison_that_meets_all_bounds_and_conditions_misses_nothing(program):
    total = program("lean").summary(figures_of())
    assert total["missed"] == []
    compared = {"networks": 10, "adversarially_trained": 5, "fewest_images": 256, "lower_on": ["2"]}
    assert compared.items() <= total.items()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"networks": ("resnet20", *"12345678")}, "networks 9 < 10"),
        ({"adversarial": 4}, "robust networks 4 < 5: adversarially trained, with 10 % of the images or more standing"),
        ({"standing": 9.9}, "robust networks 4 < 5: adversarially trained, with 10 % of the images or more standing"),
        ({"images": 255}, "fewest_images 255 < 256"),
        ({"lean": 50.0}, "lean's robust accuracy is lower on no network"),
        ({"networks": tuple("0123456789")}, "resnet20 at 0.5/255 is missing: put its checkpoint into"),
    ],
)
def test_a_condition_that_does_not_hold_is_missed(program, changes, words):
    (missed,) = program("lean").summary(figures_of(**changes))["missed"]
    assert words in missed


def test_medians_are_over_adversarially_trained_networks_on_which_a_tenth_stands(program):
    figures = figures_of()
    for each in figures.values():
        each["time_fp32"] = 0.1 if each["adversarially_trained"] else 0.9
    total = program("lean").summary(figures)
    assert (total["median_time_fp32"], total["robust"], total["missed"]) == (0.1, ["resnet20", *"0123"], [])
    figures["resnet20"]["accuracy"] = dict.fromkeys(("pyautoattack", "fp32", "bf16"), 9.9)
    assert program("lean").summary(figures)["robust"] == [*"0123"]
    figures["8"]["accuracy_difference"] = 0.37
    # The mean is over all nine on which so many stand; on one lean is a point lower.
    assert program("lean").summary(figures)["mean_accuracy_difference"] == -0.07


def test_a_comparison_of_no_robust_network_says_what_else_is_missed(program):
    missed = program("lean").summary({})["missed"]
    assert missed[0] == "networks 0 < 10"
    assert missed[-1] == "no robust network was measured"


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_the_public_network_is_attacked_where_its_checkpoint_lies(program, tmp_path, monkeypatch):
    lean_subjects, resnet20 = program("lean_subjects"), program("resnet20")
    monkeypatch.setattr(lean_subjects, "hub_folders", lambda folder: {"cifar10": folder})
    network = resnet20.resnet20().eval()
    table = table_of(make_network(), 8)
    monkeypatch.setattr(lean_subjects, "open_table", lambda *_, **__: table)
    (tmp_path / "data").mkdir()
    values = {"data_dir": str(tmp_path / "data"), "kept": str(tmp_path), "images": 8, "folder": [], "model": None}
    arguments = argparse.Namespace(**values)
    assert "resnet20" not in lean_subjects.subjects(arguments)
    (tmp_path / "models").mkdir()
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "best_prec1": 1.0}, tmp_path / "models" / resnet20.WEIGHTS)
    subject = lean_subjects.subjects(arguments)["resnet20"]()
    assert (str(subject.threat), subject.adversarial) == ("linf:0.5/255", False)
    images = table.batch().images
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert torch.allclose(subject.network(images), network((images - mean) / deviation), atol=1e-5)
    own = {"model": f"{BENCHMARKS / 'resnet20.py'}:resnet20", "weights": None, "mean": None, "std": None, "eps": "0.1"}
    named = lean_subjects.subjects(argparse.Namespace(**{**values, **own}))
    assert str(named["resnet20"]().threat) == "linf:0.1"
    own["model"] = "net.py:robust"
    assert "given" in lean_subjects.subjects(argparse.Namespace(**{**values, **own}))


@pytest.mark.parametrize(("options", "images"), [([], 256), (["--masked"], 64), (["--masked", "--images", "9"], 9)])
def test_masked_networks_are_attacked_on_fewer_images(program, monkeypatch, options, images):
    benchmark, arguments = program("lean"), []

    def subjects(parsed):
        arguments.append(parsed)
        return {"pgd": None} if options else {}

    monkeypatch.setattr(benchmark, "subjects", subjects)
    monkeypatch.setattr(benchmark, "masked_subjects", lambda *_: {})
    monkeypatch.setattr(benchmark, "measure_masked", lambda *_: 0)
    monkeypatch.setattr(sys, "argv", ["lean.py", *options])
    threads = torch.get_num_threads()
    assert benchmark.main() == (0 if options else 1)
    torch.set_num_threads(threads)
    assert arguments[0].images == images


# The table of peers


@pytest.mark.parametrize("lean", [33.2, 33.98, 32.42])
def test_two_images_may_be_flipped_by_the_draws_of_pyautoattack(program, lean):
    program("tables").check_same_network(33.2, lean, 256)


@pytest.mark.parametrize(("lean", "images"), [(34.38, 256), (32.03, 256), (33.98, 512)])
def test_three_images_are_another_network(program, lean, images):
    with pytest.raises(
        SystemExit, match=rf"may flip 2 of {images} images, 0\.(78|39) points; more means other networks"
    ):
        program("tables").check_same_network(33.2, lean, images)


# Limits of AutoAttack


@pytest.mark.parametrize(
    ("pair", "changes", "missed"),
    [
        (("linf", "robust"), {}, 0),
        (("linf", "robust"), {"time_ratio_fp32": 0.63}, 1),
        (("linf", "robust"), {"time_ratio_bf16": 0.39}, 1),
        (("linf", "robust"), {"agreement": 0.9961}, 1),
        (("linf", "robust"), {"accuracy_difference": 0.3906}, 1),
        (("linf", "robust"), {"accuracy_difference": -0.3906}, 0),
        (("linf", "robust"), {"bf16_only_standing": 1}, 1),
        (("l1", "standard"), {"bf16_only_standing": 1}, 1),
        (("linf", "standard"), {"agreement": 0.9961, "accuracy_difference": 0.3906}, 0),
        (("l2", "robust"), {"time_ratio_fp32": 0.63}, 0),
        (("l2", "robust"), {"memory_ratio": 1.01}, 1),
        (("l2", "robust"), {"memory_ratio": None}, 0),
        (("l1", "standard"), {"loss_gain": -0.03}, 1),
        (("l1", "standard"), {"loss_gain": -0.01}, 0),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_the_exit_code_says_whether_a_limit_of_autoattack_is_missed(program, capsys, pair, changes, missed, as_json):
    values = {"agreement": 1.0, "accuracy_difference": 0.0, "bf16_only_standing": 0, "time_ratio_fp32": 0.5,
              "time_ratio_bf16": 0.3, "memory_ratio": 0.9, "loss_gain": 0.1, "loss_gain_error": 0.01,
              **changes}  # fmt: skip
    figures = {f"{'_'.join(pair)}_{name}": value for name, value in values.items()}
    assert program("autoattack").told({**figures, "data": "made-up", "images": 4}, [pair], as_json) == missed
    printed = capsys.readouterr()
    assert ("MISSED" in printed.out + printed.err) == bool(missed)
    if as_json:
        assert figures.items() <= json.loads(printed.out).items()


@pytest.fixture
def own_run(program, tmp_path, monkeypatch, capsys):
    """What `autoattack.py --model` prints, and its exit code, where each way fools the images of certain numbers."""
    benchmark, own_model = program("autoattack"), program("own_model")
    network = make_network()
    table = table_of(network, 8)
    monkeypatch.setattr(own_model, "load_classifier", lambda *_, **__: network)
    monkeypatch.setattr(own_model, "open_table", lambda *_, **__: table)

    def run(*options, **fooled):
        def way(name):
            def attack(images, labels, ids):
                return torch.tensor([1.0 if number in fooled[name] else -1.0 for number in ids.tolist()]), len(ids)

            return attack

        monkeypatch.setattr(benchmark, "variants", lambda *_: {name: way(name) for name in fooled})
        monkeypatch.setattr(benchmark, "margins", lambda model, images, labels: images * 1e-6)
        monkeypatch.setattr(sys, "argv", ["autoattack.py", "--model", "net.py:own", "--eps", "1/255", *options])
        threads, filters = torch.get_num_threads(), warnings.filters[:]
        code = benchmark.main()
        torch.set_num_threads(threads)
        warnings.filters[:] = filters
        return code, json.loads(capsys.readouterr().out)["linf:1/255"]

    run.ids = table.ids.tolist()
    return run


@pytest.mark.parametrize(("missed", "code"), [(0, 0), (1, 1), (2, 1)])
def test_the_exit_code_says_whether_an_image_of_an_own_model_stands_in_bf16_alone(own_run, missed, code):
    every = set(own_run.ids)
    ended, figures = own_run(theirs=every, fp32=every, bf16=every - set(own_run.ids[:missed]))
    assert (ended, figures["bf16_only_standing"]) == (code, missed)
    assert figures["standing"] == {"theirs": 0, "fp32": 0, "bf16": missed}


def test_what_stands_in_fp32_too_does_not_count_as_lost_in_bf16(own_run):
    every = set(own_run.ids)
    ended, figures = own_run(theirs=every, fp32=every - {own_run.ids[0]}, bf16=every - {own_run.ids[0]})
    assert (ended, figures["bf16_only_standing"], figures["only_theirs"]) == (0, 0, {"fp32": 1, "bf16": 1})
    ended, figures = own_run("--only-fp32", theirs=every, fp32=every, bf16=every)
    assert ended == 0
    assert "bf16_only_standing" not in figures


def test_images_of_a_pair_that_stand_in_bf16_alone_are_counted(program, monkeypatch):
    benchmark, network = program("autoattack"), make_network()
    table = table_of(network, 8)
    fooled = {"theirs": table.ids[:6], "fp32": table.ids[1:7], "bf16": table.ids[3:]}

    def ways(*_):
        return {name: lambda images, labels, ids, those=those: (torch.isin(ids, those), 1)
                for name, those in fooled.items()}  # fmt: skip

    monkeypatch.setattr(benchmark, "variants", ways)
    monkeypatch.setattr(benchmark, "margins", lambda model, images, labels: images.float() - 0.5)
    monkeypatch.setattr(benchmark, "loss_gain", lambda *_: (0.0, 0.1))
    monkeypatch.setattr(benchmark, "CHUNKS", 1)
    figures = benchmark.measured(network, SimpleNamespace(name="digits", judged=table), "linf", "robust")
    assert figures["bf16_only_standing"] == 2
    assert figures["agreement"] == 1 - 3 / 8
    assert figures["accuracy_difference"] == 100 / 8
