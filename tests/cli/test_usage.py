"""Arguments, help and the shape of every failure."""

import json
import os
import resource
import shlex
import subprocess
import sys

import pytest

from unfool.cli.commands import COMMANDS, command_class
from unfool.cli.misuse import options_of
from unfool.core import errors

OWN = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}
EXIT_CODES = tuple(map(str, sorted({0, 70, 130, 141, *OWN} - {errors.UnfoolError.exit_code})))


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    ).stdout


def test_the_overview_names_every_command_and_every_exit_code(cli):
    told = cli("--help")
    assert told.code == 0
    assert told.err == ""
    for name in COMMANDS:
        assert f"• {name} " in told.out
    listed = told.out.partition("exit codes:")[2].splitlines()
    assert tuple(line.split()[0] for line in listed if line.strip()) == EXIT_CODES


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_helps_with_examples_that_it_understands_itself(cli, name, monkeypatch):
    told = cli(name, "--help")
    assert told.code == 0
    assert told.err == ""
    examples = [line.strip() for line in told.out.partition("\nexamples:\n")[2].splitlines() if line.strip()]
    assert len(examples) >= 2
    ran = []
    for example in examples:
        words = example.partition(" >")[0].split()
        assert words[:2] == ["unfool", name]
        monkeypatch.setattr(command_class(name), "run", lambda self: ran.append(self))
        assert cli(*words[1:]).code == 0, example
    assert len(ran) == len(examples)


def test_version(cli):
    assert cli("--version").out.startswith("unfool 0.")


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ([], ["no command", "study", "--help"]),
        (["stduy"], ["'stduy'", "did you mean 'study'?"]),
        (["--jsn"], ["'--jsn'"]),
        (["train", "--data", "digits", "--out", "x", "--epoch", "3"], ["'--epoch'", "did you mean '--epochs'?"]),
        (["doctor", "--jsno=3"], ["'--jsno'", "did you mean '--json'?"]),
        (["doctor", "now"], ["'now'", "unfool doctor --help"]),
        (["train", "--data", "digits"], ["unfool train needs --out DIR; see unfool train --help"]),
        (["attack", "x"], ["unfool attack needs --out FILE and --attack NAME"]),
        (["study"], ["unfool study needs NAME; see unfool study --help"]),
        (["evaluate"], ["no SYSTEM", "--model", "--help"]),
        (
            ["train", "--data", "digits", "--out", "x", "--epochs", "two"],
            ["--epochs 'two' is not allowed; give a whole number"],
        ),
        (["evaluate", "x", "--images", "1.5"], ["--images '1.5' is not allowed; give a whole number"]),
        (["train", "--data", "digits", "--out", "x", "--lr", "fast"], ["--lr 'fast' is not allowed; give a number"]),
        (["train", "--data", "digits", "--out"], ["--out needs a value; see unfool train --help"]),
        (["help"], ["write unfool --help"]),
        (["version"], ["write unfool --version"]),
        (["doctor", "--json", "--data-dir"], ["--data-dir"]),
        (["study", "x", "--device", "gpu"], ["'gpu'", "cpu", "cuda"]),
        (["attack", "x", "--attack", "fgsm", "--out", "x", "--norm", "l3"], ["'l3'", "linf", "l2", "l1", "all"]),
        (["evaluate", "x", "--attaks", "fgsm"], ["'--attaks'", "did you mean '--attacks'?"]),
        (["evaluate", "x", "--no-reliabilty"], ["'--no-reliabilty'", "did you mean '--no-reliability'?"]),
        (["convert", "a.pt"], ["needs OUT", "unfool convert --help"]),
        (["train", "--data", "digits", "--model", "resnet18", "--out", "x"], ["--trunk resnet18"]),
        (["train", "--arch", "resnet18"], ["unknown option '--arch'", "did you mean '--trunk'?"]),
        (["evaluate", "x", "--batch_sise", "3"], ["'--batch_sise'", "did you mean '--batch-size'?"]),
        (["evaluate", "x", "-a", "fgsm"], ["unknown option '-a'"]),
        (["evaluate", "x", "--attacks", "fgsm", "pgd"], ["'pgd'", "write --attacks fgsm --attacks pgd"]),
        (["evaluate", "x", "--images", "3", "4"], ["does not understand '4'; see unfool evaluate --help"]),
    ],
)
def test_misuse_is_one_line_with_what_was_meant(cli, arguments, pieces):
    told = cli(*arguments)
    assert told.code == 2
    complaint = told.complaint()
    for piece in pieces:
        assert piece in complaint


def test_an_option_is_answered_only_by_a_near_one(cli):
    far = cli("doctor", "--epochs", "3")
    assert far.code == 2
    assert "did you mean" not in far.complaint()
    assert far.complaint().endswith("unfool doctor --help")


@pytest.mark.parametrize("command", [("evaluate",), ("attack", "--attack", "fgsm", "--out", "x.safetensors")])
def test_an_unknown_option_beside_a_model_is_named_as_without_one(cli, command):
    complaints = {cli(*command, *more, "--nonsense", "8/255").complaint() for more in ((), ("--model", "m.py:build"))}
    assert complaints == {
        f"unfool: unknown option '--nonsense' of unfool {command[0]}; "
        f"its options are listed by unfool {command[0]} --help"
    }


def test_a_negative_number_is_a_value(cli):
    assert "unknown option" not in cli("evaluate", "x", "--model", "m.py:build", "--mean", "-1,-1,-1").complaint()


def test_a_fault_of_the_program_is_one_line_and_a_traceback_only_on_demand(cli, monkeypatch):
    def broken():
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("unfool.cli.commands.doctor.examine", broken)
    monkeypatch.setattr("unfool.data.catalog.hub_reachable", lambda name: None)
    told = cli("doctor")
    assert told.code == 70
    assert "unexpected RuntimeError: first second; please report" in told.complaint()
    for more, environment in ((["--debug"], {}), ([], {"UNFOOL_DEBUG": "1"})):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            told = cli("doctor", *more)
        assert told.code == 70
        assert "Traceback" in told.err
        assert "in broken" in told.err


def test_a_message_cannot_steer_the_terminal(cli):
    assert "\x1b" not in cli("\x1b[2Jstudy\r").complaint()


def test_no_help_needs_torch():
    commands = [["--help"], ["completion", "bash"], *([name, "--help"] for name in COMMANDS)]
    code = f"import sys; from unfool.cli import main; [main(words) for words in {commands}]; print(*sys.modules)"
    loaded = python(code).splitlines()[-1].split()
    assert "tyro" in loaded
    assert not {"torch", "numpy", "scipy", "pydantic", "matplotlib", "datasets", "sklearn"} & set(loaded)


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = []
    for _ in range(3):
        python("from unfool.cli import main; main(['train', '--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        before = after
    # A third of a second on a machine of today; torch alone would take more than one.
    assert min(seconds) < 0.6, seconds


@pytest.mark.parametrize(("set_by_user", "seen"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_passively_unless_the_user_says_otherwise(set_by_user, seen, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    code = "import os, unfool.cli; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code, **set_by_user).strip() == seen


def test_the_librarys_front_door_opens_late_and_wide():
    code = "import sys, unfool; assert 'torch' not in sys.modules; [getattr(unfool, n) for n in unfool.__all__]"
    python(code + "; assert 'torch' in sys.modules; assert set(unfool.__all__) <= set(dir(unfool))")
    import unfool

    with pytest.raises(AttributeError, match="no attribute 'open_tabel'"):
        _ = unfool.open_tabel


def test_a_reader_that_went_away_is_no_failure():
    process = subprocess.Popen(
        [sys.executable, "-m", "unfool", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_doctor_reads_as_json(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("unfool.data.catalog.hub_reachable", lambda name: "asked for by a test")
    told = cli("doctor", "--json", "--data-dir", tmp_path)
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    assert set(found) == {
        *(
            "device",
            "gpus",
            "processor",
            "cores",
            "threads",
            "omp_wait_policy",
            "bf16",
            "versions",
            "cache",
            "advice",
            "data",
        )
    }
    assert found["cache"] == os.environ["UNFOOL_CACHE_DIR"]
    assert found["omp_wait_policy"] == os.environ["OMP_WAIT_POLICY"]
    sets = {entry["name"]: entry for entry in found["data"]}
    assert sets["digits"]["reachable"] is True
    assert sets["cifar10"]["reachable"] is False
    assert sets["cifar10"]["where"] == "asked for by a test"


def test_doctor_advises_against_spinning_threads(cli, monkeypatch):
    monkeypatch.setattr("unfool.data.catalog.hub_reachable", lambda name: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    told = cli("doctor")
    assert told.code == 0
    assert f"\ncache            {os.environ['UNFOOL_CACHE_DIR']}\n" in told.out
    assert "set OMP_WAIT_POLICY=PASSIVE" in told.out
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert "OMP_WAIT_POLICY=PASSIVE" not in cli("doctor").out


@pytest.mark.parametrize(
    ("options", "threat"),
    [
        ((None, None, None), "linf:8/255"),
        (("l2:0.5", None, None), "l2:0.5"),
        ((None, "linf", "4/255"), "linf:4/255"),
        ((None, None, "4/255"), "linf:4/255"),
        ((None, "l1", None), "l1:12"),
    ],
)
def test_a_threat_model_is_a_text_or_a_norm_and_an_eps(options, threat):
    from unfool.cli.parsing.threats import read_threat

    assert str(read_threat(*options)) == threat


def test_a_threat_model_given_twice_is_refused(cli, run):
    complaint = cli("evaluate", run, "--attack", "fgsm", "--threat", "l2:1", "--eps", "1").complaint()
    assert "--threat l2:1 and --eps 1 were given" in complaint
    complaint = cli(
        "attack", run, "--attack", "fgsm", "--norm", "all", "--eps", "1", "--out", "x.safetensors"
    ).complaint()
    assert "--norm all takes the usual eps" in complaint


def test_eps_and_norm_reach_the_attack_and_the_run(cli, run, tiny, tmp_path):
    more = ("--norm", "l2", "--eps", "0.25")
    told = cli("evaluate", run, "--attack", "fgsm", *more, "--images", "4", "--no-reliability", "--json")
    assert told.code == 0, told.err
    assert [row["threat"] for row in json.loads(told.out)["rows"] if row["attack"] != "none"] == ["l2:0.25"]
    assert cli(*tiny, "--perturb", "fgsm", *more, "--steps", "1", "--out", tmp_path / "run").code == 0
    assert "threat: l2:0.25" in (tmp_path / "run" / "config.yaml").read_text()


def test_options_stand_in_groups(cli):
    for name, groups in {
        "train": ("data", "model", "task", "training", "perturbation", "selection", "machine"),
        "evaluate": ("model", "data", "attack", "defense", "ladder", "corruption", "reliability", "output", "machine"),
        "audit": ("model", "data", "attack", "defense", "machine"),
    }.items():
        shown = cli(name, "--help").out
        for group in groups:
            assert f" {group} options " in shown


def test_settings_of_the_ladder_belong_to_the_ladder(cli, run):
    complaint = cli("evaluate", run, "--attack", "fgsm", "--steps", "5").complaint()
    assert "--steps is a setting of the adaptive ladder; give --adaptive" in complaint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--severity", "3"], "--severity is a setting of the corruptions; give --corruptions"),
        (["--alpha", "0.01"], "--alpha is the error rate of a claim; give --claim"),
        (["--strict", "--no-reliability"], "which --no-reliability leaves out; give one of the two"),
        (["--adaptive", "--alpha", "0.01"], "--alpha and --adaptive cannot be combined"),
    ],
)
def test_options_that_would_do_nothing_are_refused(cli, run, options, words):
    complaint = cli("evaluate", run, "--attack", "fgsm", "--images", "4", *options)
    assert complaint.code == 2
    assert words in complaint.complaint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--binarization-test"], "--binarization-test is a test of attacks; give --attack"),
        (["--precision", "bf16", "--no-reliability"], "--precision is that in which attacks search; give --attack"),
        (["--adaptive", "--no-reliability"], "a report that --adaptive does not make; leave it out"),
    ],
)
def test_options_of_attacks_are_refused_without_one(cli, run, options, words):
    refused = cli("evaluate", run, "--images", "4", *options)
    assert refused.code == 2
    assert words in refused.complaint()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "2", "--epochs", "1"], "epochs=1 does nothing beside steps; give one of the two"),
        (["--steps", "2", "--epochs", "2"], "epochs=2 is given too: give one of the two"),
        (["--threat", "l2:1"], "threat=l2:1 does nothing without perturb, such as pgd-10, or held_out; give one"),
        (["--eps", "4/255"], "threat=linf:4/255 does nothing without perturb"),
        (["--beta", "6"], "beta=6.0 does nothing without adversarial trades or mart; give both, or neither"),
        (["--perturb", "fgsm", "--beta", "3"], "beta=3.0 does nothing without adversarial trades or mart"),
        (["--stop-attack", "fgsm"], "stop_attack=fgsm does nothing without held_out images"),
        (["--drop-every", "2"], "drop_every=2 does nothing without schedule step"),
        (["--schedule", "exponential", "--drop-factor", "0.5"], "drop_factor=0.5 does nothing without schedule step"),
        (["--schedule", "step", "--decay", "0.9"], "decay=0.9 does nothing without schedule exponential"),
        (["--optimizer", "adam", "--momentum", "0.5"], "momentum=0.5 does nothing without optimizer sgd"),
        (["--optimizer", "adam", "--no-nesterov"], "nesterov=False does nothing without optimizer sgd"),
    ],
)
def test_options_that_training_would_not_use_are_refused(cli, tiny, tmp_path, options, words):
    refused = cli(*tiny, *options, "--out", tmp_path / "run")
    assert refused.code == 2
    assert words in refused.complaint()
    assert not (tmp_path / "run").exists()


def test_options_that_need_each_other_train_together(cli, tiny, tmp_path):
    words = (
        "--optimizer sgd --momentum 0.5 --no-nesterov --schedule step --drop-every 1 --held-out 20 --stop-attack fgsm"
    )
    done = cli(*tiny, *words.split(), "--threat", "l2:1", "--steps", "1", "--out", tmp_path / "run")
    assert done.code == 0, done.err


def test_a_run_without_labels_is_refused_with_the_command_that_trains_a_head(cli, tiny, tmp_path):
    pretext = tmp_path / "rot"
    assert cli(*tiny, "--task", "rotation", "--steps", "1", "--out", pretext).code == 0
    for words in (("evaluate",), ("attack", "--attack", "fgsm", "--out", tmp_path / "set.safetensors")):
        complaint = cli(words[0], pretext, *words[1:]).complaint()
        assert f"{pretext} learnt no labels, so it classifies nothing; train a head for them: unfool train" in complaint
    remedy = complaint.partition("them: unfool ")[2].replace("--out DIR", f"--out {tmp_path / 'head'}")
    assert cli(*shlex.split(remedy), "--steps", "1").code == 0
    assert cli("evaluate", tmp_path / "head", "--images", "4", "--no-reliability").code == 0


READS_IMAGES = ("train", "evaluate", "attack", "audit", "harden", "probe", "reverse")


@pytest.mark.parametrize("command", READS_IMAGES)
def test_every_command_that_reads_images_takes_the_same_options_of_data(command):
    known = options_of(command_class(command))
    assert {"--data", "--size", "--crop", "--image", "--label", "--column", "--data-dir", "--classes"} <= set(known)
