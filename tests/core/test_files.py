"""Files are whole or absent, whatever happens while they are written; a folder has one holder."""

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest

from unfool.core.errors import OutputError
from unfool.core.files import (
    atomic_folder,
    atomic_path,
    claim_folder,
    folder_lock,
    remove_folder,
    write_json,
    write_text,
)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def write_half(target, failure):
    with atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise failure


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "deep" / "weights.bin"
    for content in ("old", "new"):
        with atomic_path(target) as temporary:
            assert temporary.parent.parent == target.parent
            temporary.write_text(content)
        assert target.read_text() == content
    assert names(target.parent) == ["weights.bin"]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_written_file_may_be_read_by_whom_the_mask_allows(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "plain", "text")
        with atomic_path(tmp_path / "private") as temporary:
            # As tempfile and the writers that use it do.
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "private")} == {0o666 & ~mask}


def test_a_reader_of_the_old_file_goes_on_reading_it_whole(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_text("old")
    with open(target) as reader:
        write_text(target, "new and longer")
        assert reader.read() == "old"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_whole_and_no_litter(tmp_path, failure):
    target = tmp_path / "metrics.csv"
    target.write_text("old")
    with pytest.raises(failure):
        write_half(target, failure())
    assert target.read_text() == "old"
    assert names(tmp_path) == ["metrics.csv"]


def test_a_full_disk_is_an_output_error_and_leaves_the_old_file(tmp_path):
    target = tmp_path / "metrics.csv"
    target.write_text("old")
    with pytest.raises(OutputError, match="No space left"):
        write_half(target, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert target.read_text() == "old"
    assert names(tmp_path) == ["metrics.csv"]


def test_a_failing_rename_is_an_output_error_without_litter(tmp_path):
    (tmp_path / "target").mkdir()
    with pytest.raises(OutputError):
        write_text(tmp_path / "target", "text")
    assert names(tmp_path) == ["target"]


KILLED = """
import os, signal, sys
from unfool.core.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    with open(temporary, "w") as file:
        file.write("half of the n")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_writing(target):
    target.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_kill_9_while_writing_leaves_the_old_file_whole(tmp_path):
    killed_while_writing(tmp_path / "weights.bin")
    assert (tmp_path / "weights.bin").read_text() == "old"


def test_the_next_write_clears_what_a_killed_one_left(tmp_path):
    target = tmp_path / "weights.bin"
    killed_while_writing(target)
    write_text(target, "new")
    assert target.read_text() == "new"
    assert names(tmp_path) == ["weights.bin"]


def test_the_next_holder_of_a_folder_clears_what_killed_writers_left_below_and_nothing_else(tmp_path):
    (tmp_path / "deep").mkdir()
    killed_while_writing(tmp_path / "deep" / "weights.bin")
    with atomic_path(tmp_path / "weights.bin") as mine:
        with folder_lock(tmp_path):
            pass
        assert names(tmp_path / "deep") == ["weights.bin"]
        assert mine.is_file()


def test_what_a_process_with_the_same_number_left_is_cleared(tmp_path):
    """In a container the number is always 1."""
    for number in (os.getpid(), 1):
        (tmp_path / f".weights.bin.{number}.01234567.part").mkdir()
    write_text(tmp_path / "weights.bin", "new")
    assert names(tmp_path) == ["weights.bin"]


@contextmanager
def special(path, kind):
    """A FIFO, socket, directory, device, or a link to nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind(os.path.relpath(path))
        elif kind == "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        else:
            {"FIFO": os.mkfifo, "directory": os.mkdir, "link": lambda path: os.symlink("nowhere", path)}[kind](path)
        yield


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "device", "link"])
def test_nothing_but_a_regular_file_is_replaced(tmp_path, monkeypatch, kind, linked):
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root makes device nodes")
    monkeypatch.chdir(tmp_path)
    with special(tmp_path / "thing", kind):
        os.symlink("thing", "to-it")
        before = os.lstat("thing")
        with pytest.raises(OutputError, match=f"cannot write .*{kind}"):
            write_text("to-it" if linked else "thing", "text")
        assert (os.lstat("thing").st_mode, os.lstat("thing").st_ino) == (before.st_mode, before.st_ino)
        assert os.path.islink("to-it")
    assert names(tmp_path) == ["thing", "to-it"]


def test_a_link_to_a_file_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path):
    name = "ü" * 127 + "x"
    write_text(tmp_path / name, "text")
    assert names(tmp_path) == [name]


def test_a_dash_is_the_standard_output_for_json_and_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    with pytest.raises(OutputError, match=r"\./-"):
        write_text("-", "text")
    assert names(tmp_path) == []


def test_the_name_of_a_file_that_is_no_text_is_written(tmp_path):
    write_json(tmp_path / "a.json", {"name": "\udcff"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"name": "\udcff"}


def test_a_path_with_a_nul_is_one_clear_line(tmp_path):
    for write in (lambda path: write_text(path, ""), lambda path: folder_lock(path).__enter__()):
        with pytest.raises(OutputError, match="no path holds a NUL"):
            write(f"{tmp_path}/a\0b")


@pytest.mark.parametrize("folder", ["/proc/unfool", "a-file/below", "a-file"])
def test_an_unwritable_folder_is_one_clear_line(tmp_path, folder):
    (tmp_path / "a-file").write_text("in the way")
    for write in (
        lambda: write_text(tmp_path / folder / "x.json", "{}"),
        lambda: folder_lock(tmp_path / folder).__enter__(),
    ):
        with pytest.raises(OutputError, match="cannot write") as caught:
            write()
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["a-file"]


@pytest.mark.parametrize("below", ["", "more", "more/still"])
@pytest.mark.parametrize(
    ("place", "words"),
    [("FIFO", "a FIFO and no folder"), ("file", "a file and no folder"), ("link", "a link to .*nowhere, which is not")],
)
def test_what_stands_where_a_folder_should_be_is_named(tmp_path, place, words, below):
    path = tmp_path / "run"
    {"FIFO": os.mkfifo, "file": lambda path: path.touch(), "link": lambda path: os.symlink(tmp_path / "nowhere", path)}[
        place
    ](path)
    with pytest.raises(OutputError, match=f"cannot write {path / below}: .*{words}"), folder_lock(path / below):
        pass
    with pytest.raises(OutputError, match=words):
        write_text(path / below / "file", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["run"]


def test_json_is_strict_and_readable(tmp_path):
    target = tmp_path / "rows.json"
    write_json(target, {"b": 1, "a": ["ü", None]})
    assert target.read_text(encoding="utf-8").endswith("\n")
    assert list(json.loads(target.read_text(encoding="utf-8"))) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"loss": float("nan")})
    assert json.loads(target.read_text(encoding="utf-8"))["b"] == 1
    assert names(tmp_path) == ["rows.json"]


def test_a_second_holder_of_a_folder_is_refused_until_the_first_lets_go(tmp_path):
    folder = tmp_path / "run"
    with folder_lock(folder), pytest.raises(OutputError, match="in use"), folder_lock(folder):
        pytest.fail("two holders")
    with folder_lock(folder):
        pass
    with pytest.raises(ValueError, match="inside"), folder_lock(folder):
        raise ValueError("inside")
    with folder_lock(folder):
        pass


HOLDER = """
import sys
from unfool.core.files import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_another_process_is_refused_and_a_killed_holder_does_not_block(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another unfool process"), folder_lock(tmp_path):
            pytest.fail("two holders")
        holder.kill()
        holder.wait()
        with folder_lock(tmp_path):
            pass


def test_a_folder_that_is_claimed_is_refused_to_another_and_kept_by_its_owner(tmp_path):
    path = tmp_path / "study.json"
    claim_folder(path, {"study": "a", "settings": {"x": 1}}, "study")
    claim_folder(path, {"study": "a", "settings": {"x": 1}}, "study")
    with pytest.raises(OutputError, match="holds a study with another settings; choose another --out"):
        claim_folder(path, {"study": "a", "settings": {"x": 2}}, "study")
    path.write_text("no JSON")
    with pytest.raises(OutputError, match="is not JSON"):
        claim_folder(path, {}, "study")


REPLACING = """
import os, signal, sys
from unfool.core.files import atomic_folder
real, calls = os.replace, []
def replace(*paths):
    calls.append(paths)
    os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 2 else real(*paths)
os.replace = replace
with atomic_folder(sys.argv[1]) as folder:
    (folder / "new").touch()
"""


@pytest.mark.parametrize("name", ["set", "s" * 250, "replaced"])
def test_a_folder_that_a_killed_process_was_replacing_comes_back(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "old").touch()
    done = subprocess.run([sys.executable, "-c", REPLACING, str(folder)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with folder_lock(tmp_path):
        assert names(folder) == ["old"]
    folder.rename(tmp_path / "kept")
    subprocess.run([sys.executable, "-c", REPLACING, str(tmp_path / "kept")], check=False, capture_output=True)
    with pytest.raises(OutputError, match="folder"):
        write_text(tmp_path / "kept", "text")
    assert names(tmp_path) == [".lock", "kept"]
    with atomic_folder(tmp_path / "kept") as new:
        (new / "new").touch()
    assert names(tmp_path / "kept") == ["new"]


@pytest.mark.parametrize("failing", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch, failing):
    folder, real, calls = tmp_path / "set", os.replace, []
    folder.mkdir()
    (folder / "old").touch()

    def replace(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise failing
        real(*paths)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((OutputError, KeyboardInterrupt)), atomic_folder(folder) as new:
        (new / "new").touch()
    assert names(tmp_path) == ["set"]
    assert names(folder) == ["old"]


def test_what_is_replaced_is_kept_aside_where_it_cannot_go_back_and_goes_back_later(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "old").touch()

    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    real = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: real(*paths) if paths[0] == folder else refuse())
        patch.setattr(os, "rename", refuse)
        with pytest.raises(OutputError), atomic_folder(folder):
            pass
    assert not folder.exists()
    with folder_lock(tmp_path):
        assert names(folder) == ["old"]
    assert names(tmp_path) == [".lock", "set"]


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked", "before it is looked at"])
def test_a_temporary_folder_that_another_process_sweeps_at_once_is_made_again(tmp_path, monkeypatch, when):
    """It cannot be told from a leftover until it is locked."""
    swept = []

    def sweep(*_):
        if not swept:
            swept.extend(tmp_path.glob(".*.part"))
            swept[0].rmdir()

    after = {"before it is opened": (os, "open"), "before it is locked": (fcntl, "flock")}
    owner, called = after.get(when, (os, "fstat"))
    real = getattr(owner, called)
    monkeypatch.setattr(owner, called, lambda *args, **more: (sweep(), real(*args, **more))[1])
    write_text(tmp_path / "file", "text")
    assert len(swept) == 1
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["fifo", "link", "file"])
def test_what_only_has_the_name_of_a_temporary_folder_is_no_hindrance(tmp_path, kind):
    place = tmp_path / ".file.1.01234567.part"
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to(tmp_path), "file": lambda path: path.touch()}[kind](place)
    code = "import sys; from unfool.core.files import write_text; write_text(sys.argv[1], 'text')"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True, timeout=60)
    assert (tmp_path / "file").read_text() == "text"


REMOVING = """
import os, shutil, signal, sys
from unfool.core.files import atomic
atomic.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
atomic.remove_folder(sys.argv[1])
"""


def test_a_folder_is_removed_as_if_at_once_and_what_a_killed_removal_left_is_cleared(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "batch").write_text("done")
    done = subprocess.run([sys.executable, "-c", REMOVING, str(folder)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not folder.exists()
    remove_folder(folder)
    assert names(tmp_path) == []
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to("elsewhere")
    remove_folder(folder)
    assert names(tmp_path) == ["elsewhere", "state"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
def test_files_written_and_folders_removed_leave_nothing_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        (tmp_path / "folder").mkdir()
        write_text(tmp_path / "folder" / "file", "text")
        remove_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert len(os.listdir("/proc/self/fd")) == before
