"""How plugin files and entry points are loaded: once, under a stable name, in every process, or not at all."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from unfool.cli import main
from unfool.core import plugins
from unfool.core.errors import SpecError
from unfool.core.plugins import load_plugin, plugin_files, unload_plugin
from unfool.data.sources import SETS
from unfool.tasks import TASKS, Task

TASK = """
from unfool.tasks import TASKS, Task

@TASKS.add({name!r})
class Mine(Task):
    value = {value}
"""
BROKEN = "from unfool.tasks import TASKS, Task\nTASKS.add('half')(type('Half', (Task,), {}))\n\n1 / 0\n"


def task(name="mine", value=1):
    return TASK.format(name=name, value=value)


def test_a_file_registers_its_items_once(write):
    path = write(task())
    module = load_plugin(path)
    assert load_plugin(str(path)) is module
    assert TASKS["mine"] is module.Mine
    assert plugin_files() == [path]
    unload_plugin(path)
    assert "mine" not in TASKS
    assert plugin_files() == []


def test_a_changed_file_takes_its_own_place(write):
    first = load_plugin(write(task(value=1)))
    second = load_plugin(write(task(value=2)))
    assert TASKS["mine"].value == 2
    assert first.__name__ != second.__name__  # results of the two must not be taken for each other's
    assert len(plugin_files()) == 1


def test_the_same_content_elsewhere_has_the_same_name(write, tmp_path):
    first = load_plugin(write(task())).__name__
    unload_plugin(write(task()))
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "my_plugin.py"
    other.write_text(task())
    assert load_plugin(other).__name__ == first


def test_a_file_may_import_what_lies_beside_it(write):
    write("NAME = 'beside'", "neighbour_of_a_plugin.py")
    load_plugin(write("from neighbour_of_a_plugin import NAME\n" + task("beside")))
    assert "beside" in TASKS
    assert not any("neighbour" in folder for folder in sys.path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (BROKEN, r"my_plugin.py failed at .*my_plugin.py:4: ZeroDivisionError"),
        ("def f(:", r"my_plugin.py failed at .*my_plugin.py:1: SyntaxError"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        (task("rotation"), "task 'rotation' of plugin .*my_plugin.py is already registered by unfool.tasks"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from unfool.tasks import TASKS\nTASKS.add('half')(lambda: 3)",
            "task 'half' of plugin .* is a function; register a subclass of Task",
        ),
        (
            "from unfool.attacks import ATTACKS, Attack\nATTACKS.add('half')(type('Half', (Attack,), {}))",
            "attack 'half' of plugin .* does not define parts, as every attack must",
        ),
        ("from unfool.defenses import DEFENSES\nDEFENSES.add('half')(3)", "is a int; register a function"),
        ("from unfool.data.sources import SETS\nSETS.add('half')(3)", "is a int; register a DataSet"),
    ],
)
def test_a_file_that_fails_leaves_nothing_behind(write, source, words):
    path = write(source)
    for _ in range(2):
        with pytest.raises(SpecError, match=words) as caught:
            load_plugin(path)
        assert "\n" not in str(caught.value)
    assert "half" not in TASKS
    assert "rotation" in TASKS
    assert plugin_files() == []
    load_plugin(write(task("half")))
    assert "half" in TASKS


def test_what_the_library_registers_meanwhile_is_not_the_plugins(write):
    """In a process that has imported nothing yet, a plugin's imports fill registries too."""
    program = (
        "import sys; from unfool.core.plugins import load_plugin, unload_plugin; load_plugin(sys.argv[1]); "
        "unload_plugin(sys.argv[1]); from unfool.models.heads import HEADS; from unfool.tasks import TASKS; "
        "print('linear' in HEADS, 'labels' in TASKS, 'mine' in TASKS, TASKS._sources['labels'])"
    )
    path = write("import unfool.models.network, unfool.tasks.labels\n" + task())
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "unfool.tasks.labels"]


def test_two_files_may_not_take_one_name(write):
    load_plugin(write(task()))
    with pytest.raises(SpecError, match=r"of plugin .*second.py is already registered by plugin .*my_plugin.py"):
        load_plugin(write(task(value=3), "second.py"))
    assert TASKS["mine"].value == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match="no plugin file"):
        load_plugin(tmp_path / "none.py")


def test_the_environment_names_files(write, monkeypatch):
    path = write(task("listed"))
    monkeypatch.setenv(plugins.VARIABLE, f"{path}{os.pathsep}")
    monkeypatch.setattr(TASKS, "_loaded", False)
    assert "listed" in TASKS


def test_other_processes_know_its_classes(write):
    # With the parent's environment alone: no initializer, nothing imported beforehand.
    module = load_plugin(write(task(value=7)))
    program = (
        "import pickle, sys; cls = pickle.load(sys.stdin.buffer); "
        "from unfool.tasks import TASKS; print(cls.value, TASKS['mine'] is cls)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(module.Mine), capture_output=True, check=True
    )
    assert done.stdout.split() == [b"7", b"True"]


def test_spawned_workers_know_its_classes(write):
    module = load_plugin(write("def double(x):\n    return 2 * x\n"))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(module.double, 4).result() == 8


class Entry:
    """An entry point as an installed package declares it."""

    def __init__(self, name, load):
        self.name, self.load = name, load
        self.dist = type("Dist", (), {"name": "acme"})


@pytest.fixture
def installed(monkeypatch):
    """A function that pretends that a package with these entry points is installed; the task registry reloads."""

    def install(*entries):
        groups = {"unfool.tasks": entries}
        monkeypatch.setattr(plugins, "_installed", lambda group: groups.get(group, ()))
        monkeypatch.setattr(TASKS, "_loaded", False)

    yield install
    for name in ("acme", "acme-own"):
        TASKS._remove(name)


def test_an_entry_point_of_an_object_registers_it(installed):
    installed(Entry("acme", lambda: type("Acme", (Task,), {})))
    assert "acme" in TASKS
    assert "rotation" in TASKS


def test_an_entry_point_of_a_module_registers_what_the_module_does(installed):
    def load():
        TASKS.add("acme-own")(type("Own", (Task,), {}))
        return os

    installed(Entry("acme", load))
    assert "acme-own" in TASKS
    assert "acme" not in TASKS


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (
            lambda: 1 / 0,
            r"entry point 'acme' \(unfool.tasks\) of the package acme failed.*ZeroDivisionError.*uninstall",
        ),
        (lambda: TASKS.add("labels")(object), r"task 'labels' of entry point 'acme' .* package acme.* uninstall it"),
    ],
)
def test_a_broken_entry_point_is_named(installed, load, words):
    installed(Entry("acme", load))
    with pytest.raises(SpecError, match=words) as caught:
        TASKS["rotation"]
    assert "\n" not in str(caught.value)
    installed()
    assert "rotation" in TASKS


def test_every_registry_reads_a_group():
    from unfool.attacks import ATTACKS
    from unfool.data.corruptions.base import CORRUPTIONS
    from unfool.defenses import DEFENSES
    from unfool.models.heads import HEADS
    from unfool.models.trunks import TRUNKS

    groups = {r.group for r in (TASKS, ATTACKS, DEFENSES, SETS, TRUNKS, HEADS, CORRUPTIONS)}
    assert groups == {f"unfool.{n}" for n in ("tasks", "attacks", "defenses", "data", "trunks", "heads", "corruptions")}


@pytest.mark.parametrize("place", ["before", "after", "equals"])
def test_the_command_line_loads_a_file_anywhere(write, place, capsys):
    path = str(write(task("cli-task") + "print('printed-by-plugin')\n"))
    command = ["study", "--help"]
    arguments = {
        "before": ["--plugin", path, *command],
        "after": [*command, "--plugin", path],
        "equals": [*command, f"--plugin={path}"],
    }[place]
    assert main(arguments) == 0
    assert "cli-task" in TASKS
    assert "printed-by-plugin" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["doctor", "--plugin"], ["--plugin", "--debug-not", "doctor"], ["--plugin="]])
def test_the_option_needs_a_file(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err == "unfool: --plugin needs a file; write --plugin my_plugin.py\n"


def test_the_command_line_names_a_broken_file(write, capsys):
    assert main(["doctor", "--plugin", str(write(BROKEN))]) == 2
    error = capsys.readouterr().err
    assert "my_plugin.py:4: ZeroDivisionError" in error
    assert error.count("\n") == 1
