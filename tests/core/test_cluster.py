"""Jobs that travel, without a cluster: what lands, what is refused, and what happens when nodes are lost."""

import functools
import hashlib
import io
import socket
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from unfool.core.cluster import messages, parcels, versions
from unfool.core.cluster.dispatch import ATTEMPTS, INLINE, Lost, run_on
from unfool.core.cluster.landing import Landing
from unfool.core.cluster.messages import Chunk, Message
from unfool.core.cluster.node import NodeRun, sweep_runs
from unfool.core.cluster.outgoing import NodeFolder
from unfool.core.cluster.parcels import contents, parcel_of
from unfool.core.cluster.worker import run_package
from unfool.core.errors import DataError, SpecError, UnfoolWarning, WorkerError
from unfool.core.parallel import executor, reporting
from unfool.core.parallel.graph import files_of
from unfool.core.parallel.job import Job
from unfool.core.parallel.schedule import Schedule


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(reporting, "_send", None)


class Node:
    """A transport to one node in this process; ``lose`` says after how many messages of which try a job is lost."""

    def __init__(self, folder, asker, lose=None):
        self.folder, self.lose = folder, lose or {}
        self.space = self.new_space(asker)
        self.packages, self.puts, self.tries, self.cancelled, self.largest = [], [], {}, [], 0

    def new_space(self, asker):
        (self.folder / "work").mkdir(parents=True)
        return NodeFolder(self.folder / "work", self.folder / "outbox", asker)

    def room(self, job, running):
        return not running

    def put(self, part):
        self.puts.append(part)
        return len(self.puts) - 1

    def submit(self, job, package):
        self.packages.append(package)
        number = self.tries[job.name] = self.tries.get(job.name, 0) + 1
        fetch = lambda part: self.puts[part] if isinstance(part, int) else part  # noqa: E731
        messages = run_package(package, self.space, fetch)
        return (job.name, number, iter(messages), [0])

    def __hash__(self):
        return id(self)

    def events(self, handles, seconds):
        name, number, messages, count = handles[0]
        if self.lose.get((name, number)) == count[0]:
            messages.close()
            return [(handles[0], Lost("its worker was killed"))]
        count[0] += 1
        message = next(messages)
        self.largest = max(self.largest, sum(len(chunk.data) for chunk in message.chunks))
        return [(handles[0], message)]

    def cancel(self, handles):
        self.cancelled += [name for name, *_ in handles]


class Handle(tuple):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


@pytest.fixture
def asker(tmp_path):
    (tmp_path / "asker").mkdir()
    return tmp_path / "asker"


def run(node, asker, *jobs, files=None, console=None):
    submit = node.submit
    node.submit = lambda job, package: Handle(submit(job, package))
    console = console or Console(quiet=True)
    run_on(node, Schedule(jobs), asker, console, device="meta", files=files or {})


def job(name, call, *needs, reads=(), **options):
    return Job(name=name, call=call, needs=frozenset(needs), reads=lambda: reads, **options)


def write(name, text, place):
    (place.folder / name).parent.mkdir(parents=True, exist_ok=True)
    (place.folder / name).write_text(text)


def test_what_a_job_leaves_lands_and_is_there_for_those_that_read_it(tmp_path, asker):
    def join(place):
        names = sorted(path.name for path in place.folder.iterdir())
        write("joined", f"{(place.folder / 'a').read_text()}{(place.folder / 'b').read_text()} {names}", place)

    node = Node(tmp_path / "node", asker)
    (asker / "unread").write_text("")
    make = {name: functools.partial(write, name, name * 2) for name in "ab"}
    jobs = [job(name, call) for name, call in make.items()]
    run(node, asker, job("joined", join, "a", "b", reads=[asker / "a", asker / "b"]), *jobs)
    assert (asker / "joined").read_text() == "aabb ['a', 'b']"
    assert [[item.path for item in package.inputs] for package in node.packages] == [[], [], ["a", "b"]]
    assert not list(asker.rglob("*.part"))


def test_large_files_travel_in_chunks_and_are_handed_over_once(tmp_path, asker, monkeypatch):
    monkeypatch.setattr(messages, "CHUNK", 1000)
    monkeypatch.setattr("unfool.core.cluster.outgoing.CHUNK", 1000)
    content = np.random.default_rng(0).bytes(INLINE + 1)
    (asker / "large").write_bytes(content)

    def copy(name, place):
        (place.folder / name).write_bytes((place.folder / "large").read_bytes() + b"end")

    node = Node(tmp_path / "node", asker)
    run(node, asker, *(job(name, functools.partial(copy, name), reads=[asker / "large"]) for name in "ab"))
    assert (asker / "a").read_bytes() == (asker / "b").read_bytes() == content + b"end"
    assert node.largest <= 1000
    assert len(node.puts) == 2 * (INLINE // 1000 + 1)  # dropped when the first was done, since only one runs at a time


def test_nothing_is_in_its_place_before_all_of_it_is(asker):
    landing = Landing(asker)
    part = np.frombuffer(b"half", np.uint8)
    landing.take(Message(chunks=(Chunk(path="below/file", offset=0, size=8, data=part),)))
    assert not (asker / "below" / "file").exists()
    landing.take(Message(chunks=(Chunk(path="below/file", offset=4, size=8, data=part),), commit=True))
    assert (asker / "below" / "file").read_bytes() == b"halfhalf"
    landing.take(Message(chunks=(Chunk(path="other", offset=0, size=8, data=part),)))
    with pytest.raises(WorkerError, match="only parts of other came from a node"):
        landing.take(Message(commit=True))
    landing.abandon()
    assert [path.name for path in asker.rglob("*")] == ["below", "file"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ""])
def test_a_file_outside_of_the_folder_is_refused(asker, path):
    chunk = Chunk(path=path, offset=0, size=0, data=np.empty(0, np.uint8))
    with pytest.raises(WorkerError, match="not below the folder"):
        Landing(asker).take(Message(chunks=(chunk,), commit=True))


def test_parts_that_come_out_of_order_are_refused(asker):
    chunk = Chunk(path="a", offset=4, size=8, data=np.zeros(4, np.uint8))
    with pytest.raises(WorkerError, match="out of order"):
        Landing(asker).take(Message(chunks=(chunk,)))


def test_a_lost_job_begins_again_from_what_has_landed_and_says_so(tmp_path, asker, monkeypatch):
    monkeypatch.setattr("unfool.core.cluster.worker.LOOK_EVERY", 0.0)
    monkeypatch.setattr("unfool.core.cluster.worker.EVERY", 0.01)
    starts, over = [], threading.Event()

    def count(place):
        file = place.folder / "count"
        starts.append(int(file.read_text()) if file.exists() else 0)
        file.write_text(str(starts[-1] + 1))
        if starts[-1] < 2:
            over.wait(10)

    node = Node(tmp_path / "node", asker, lose={("count", 1): 1, ("count", 2): 1})
    console = Console(file=io.StringIO(), width=200)
    try:
        run(node, asker, job("count", count, reads=[asker / "count"]), console=console)
    finally:
        over.set()
    assert starts == [0, 1, 2]
    assert (asker / "count").read_text() == "3"
    assert console.file.getvalue().count("count begins again: its worker was killed") == 2


def test_a_job_that_is_lost_every_time_ends_the_run(tmp_path, asker):
    node = Node(tmp_path / "node", asker, lose={("a", number): 0 for number in range(1, 9)})
    with pytest.raises(WorkerError, match="a was lost 4 times, at last because its worker was killed; if memory"):
        run(node, asker, job("a", lambda place: None))
    assert node.tries == {"a": ATTEMPTS}


def test_warnings_of_a_node_are_given_here(tmp_path, asker):
    def warn(place):
        warnings.warn("a remark", UnfoolWarning, stacklevel=1)
        warnings.warn("of another library", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(Node(tmp_path / "node", asker), asker, job("a", warn))
    assert {(str(warning.message), warning.category) for warning in caught} == {
        ("a remark", UnfoolWarning),
        ("of another library", UserWarning),
    }


def test_a_jobs_own_error_comes_back_and_ends_the_others(tmp_path, asker):
    def refuse(place):
        write("before", "kept", place)
        raise DataError("this piece cannot be made")

    node = Node(tmp_path / "node", asker)
    with pytest.raises(DataError, match="this piece cannot be made"):
        run(node, asker, job("a", refuse), job("b", lambda place: None, "a"))
    assert node.cancelled == ["a"]
    assert [package.name for package in node.packages] == ["a"]
    assert (asker / "before").read_text() == "kept"


def test_what_a_job_removes_goes_here_too(tmp_path, asker):
    (asker / "checkpoint").mkdir()
    (asker / "checkpoint" / "state").write_text("half")

    def finish(place):
        assert (place.folder / "checkpoint" / "state").read_text() == "half"
        (place.folder / "checkpoint" / "state").unlink()
        write("weights", "whole", place)

    run(Node(tmp_path / "node", asker), asker, job("a", finish, reads=[asker / "checkpoint"]))
    assert sorted(path.name for path in asker.rglob("*") if path.is_file()) == ["weights"]


def test_files_land_in_an_order_that_fits_together(tmp_path, asker):
    folder = tmp_path / "work"
    folder.mkdir()
    space = NodeFolder(folder, tmp_path / "outbox", asker)
    with open(folder / "log.csv", "w") as log:
        log.write("1\n")
        log.flush()
        assert [chunk.path for message in space.messages() for chunk in message.chunks] == ["log.csv"]
        (folder / "checkpoint").write_text("1")
        log.write("2\n")
        log.flush()
    sent = [(chunk.path, bytes(chunk.data)) for message in space.messages() for chunk in message.chunks]
    assert sent == [("log.csv", b"1\n2\n"), ("checkpoint", b"1")]
    assert list(space.messages()) == []


def test_settings_name_the_folder_of_the_asker(tmp_path, asker):
    def configure(place):
        write("config.yaml", f"start: {place.folder}/models/a\n", place)

    run(Node(tmp_path / "node", asker), asker, job("a", configure))
    assert (asker / "config.yaml").read_text() == f"start: {asker}/models/a\n"


def test_what_stays_on_a_node_is_not_brought_in_again(tmp_path, asker):
    folder = tmp_path / "work"
    folder.mkdir()
    space = NodeFolder(folder, tmp_path / "outbox", asker)
    digest = hashlib.blake2b(b"text", digest_size=16).hexdigest()
    fetched = []

    def fetch(part):
        fetched.append(part)
        return np.frombuffer(b"text", np.uint8)

    item = messages.Input(path="below/a", size=4, digest=digest, parts=("part",))
    for inputs in ([item], [item], [], [item]):
        space.bring_in(inputs, fetch)
        assert [path.name for path in folder.rglob("*")] == (["below", "a"] if inputs else [])
    assert fetched == ["part", "part"]


def test_other_versions_are_refused_with_both_named(monkeypatch, tmp_path):
    own = versions.versions_here()
    versions.check_versions("node n", own)
    other = versions.Versions(own.unfool, "0" * 12, own.python, "1.0")
    with pytest.raises(WorkerError, match=r"node n differs from this machine in code and torch: there unfool .* here"):
        versions.check_versions("node n", other)
    (tmp_path / "a.py").write_text("1")
    digest = versions._code_digest(tmp_path)
    (tmp_path / "a.py").write_text("2")
    assert versions._code_digest(tmp_path) != digest


def test_a_node_is_sent_what_it_lacks_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    for place in ("asker", "own"):
        (tmp_path / place / "words" / "deep").mkdir(parents=True)
        (tmp_path / place / "words" / "deep" / "a.txt").write_text("asker")
    sent = parcel_of(tmp_path / "asker" / "words", place="words")
    away = (tmp_path / "asker").rename(tmp_path / "on the asker's disk")
    node = NodeRun("run", "0123456789abcdef")
    assert node.lacks(sent, tmp_path / "own") == "content"  # a set of the same names and sizes may be another
    away.rename(tmp_path / "asker")
    sent = sent.read()
    away = (tmp_path / "asker").rename(tmp_path / "on the asker's disk")
    assert not node.lacks(sent, tmp_path / "own")  # a set with the same files is its own
    assert node.parcel(sent.digest).resolve() == tmp_path / "own" / "words"
    for words in ("longer text", "askeD"):  # other labels or pixels of the same size too
        (tmp_path / "own" / "words" / "deep" / "a.txt").write_text(words)
        other = NodeRun("other", "0123456789abcdef")
        assert other.lacks(sent, tmp_path / "own") == "files"
    away.rename(tmp_path / "asker")
    third = NodeRun("third", "0123456789abcdef")
    assert not third.lacks(sent, tmp_path / "own")  # on a shared disk the asker's own is there
    third.remove()
    for file, offset, part in contents(sent):
        other.write(sent, file, offset, part)
    other.close(sent)
    monkeypatch.setenv("UNFOOL_CACHE_DIR", "")
    data_dir = other.data_dir({"words": sent.digest}, tmp_path / "own")
    assert (data_dir / "words" / "deep" / "a.txt").read_text() == "asker"
    node.remove()
    other.remove()
    assert not list((tmp_path / "tmp").glob("*/*"))


def test_a_set_is_read_only_where_a_node_has_its_names_and_sizes_and_sent_where_the_content_differs(
    tmp_path, monkeypatch
):
    ray_nodes = pytest.importorskip("unfool.core.cluster.ray_nodes", exc_type=ImportError)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for place, words in (("asker", "cat"), ("same", "cat"), ("other", "dog"), ("none", "")):
        (tmp_path / place / "words").mkdir(parents=True)
        (tmp_path / place / "words" / "labels.csv").write_text(words)
    sent = parcel_of(tmp_path / "asker" / "words", place="words")
    shipped = ray_nodes.Shipped(parcels={sent.digest: sent})
    asked = []

    class Task:
        def __init__(self, node):
            self.node, self.run = node, NodeRun(node, node)

        def remote(self, _, own):
            asked.append((self.node, own[0].content != ""))
            (tmp_path / "asker").rename(tmp_path / "on the asker's disk")
            lacks = {parcel.digest: self.run.lacks(parcel, tmp_path / self.node) for parcel in own}
            (tmp_path / "on the asker's disk").rename(tmp_path / "asker")
            return [(digest, lack) for digest, lack in lacks.items() if lack]

    monkeypatch.setattr(ray_nodes, "_on", lambda _, node: Task(node))
    monkeypatch.setattr(ray_nodes, "_answer", lambda node, answer, seconds: answer)
    nodes = ray_nodes.Nodes(None, shipped)
    assert nodes._lacking(["none"]) == {sent.digest: ["none"]}
    assert asked == [("none", False)]
    assert nodes._lacking(["same", "other"]) == {sent.digest: ["other"]}
    assert asked[-1][1]


def test_sent_sets_lie_beside_those_of_the_node_and_nothing_is_written_into_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("UNFOOL_CACHE_DIR", "")
    own = tmp_path / "own"
    for place in ("owner/cats", "owner/pets", "words"):
        (own / place).mkdir(parents=True)
        (own / place / "own.txt").write_text("own")
    before = sorted(own.rglob("*"))
    node = NodeRun("run", "n")
    sets: dict[str, str] = {}
    for place in ("words", "owner/dogs", "owner/pets", ".sent/0123"):
        (tmp_path / "asker" / place).mkdir(parents=True)
        (tmp_path / "asker" / place / "sent.txt").write_text(place)
        sent = parcel_of(tmp_path / "asker" / place, place=place)
        for file, offset, part in contents(sent):
            node.write(sent, file, offset, part)
        node.close(sent)
        # The first job is sent one set; its directory links `owner` whole, and the next one's must not.
        sets[place] = sent.digest
        data_dir = node.data_dir(sets, own)
    for _ in range(2):
        data_dir = node.data_dir(sets, own)
        assert {place: (data_dir / place / "sent.txt").read_text() for place in sets} == {
            place: place for place in sets
        }
        assert (data_dir / "owner" / "cats" / "own.txt").read_text() == "own"
    assert sorted(own.rglob("*")) == before
    node.remove()
    assert sorted(own.rglob("*")) == before


def test_of_a_folder_only_the_files_that_are_named_are_sent(tmp_path):
    for name in ("a.py", "below/b.py", "other.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to(tmp_path)
    sent = parcel_of(tmp_path / "link", only=[tmp_path / "link" / "a.py", tmp_path / "link" / "below" / "b.py"])
    assert [(file, bytes(part.data)) for file, _, part in contents(sent)] == [
        ("a.py", b"a.py"),
        ("below/b.py", b"below/b.py"),
    ]
    assert parcels.same_files(sent, tmp_path)
    (tmp_path / "a.py").unlink()
    assert not parcels.same_files(sent, tmp_path)
    with pytest.raises(DataError, match=r"c\.py does not lie below .* and cannot be sent with it"):
        parcel_of(tmp_path / "below", only=[tmp_path / "c.py"])


def test_what_dead_runs_left_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    alive, dead = NodeRun("alive", "n"), NodeRun("dead", "n")
    dead.release()
    sweep_runs()
    assert alive.root.is_dir()
    assert not dead.root.exists()


def test_a_file_that_is_not_there_cannot_be_sent(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*nothing to send"):
        parcel_of(tmp_path / "nothing")
    assert parcels.same_files(parcel_of(Path(__file__)), Path(__file__))


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"pip install 'unfool\[cluster\]'"):
        executor.executor_for("auto")


def test_files_of_a_piece_are_those_of_its_path_and_of_no_longer_one(tmp_path):
    own = [
        "models/a/weights",
        "models/a/checkpoint/x",
        "sets/a.safetensors/shard",
        "records/a.json",
        "records/a/c/1.json",
    ]
    others = ["models/a/b/weights", "records/a/b.json", "records/a.5.json", "study.json"]
    for name in own + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = {
        path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path, ["a"], frozenset({"a", "a/b", "a.5"}))
    }
    assert files == set(own)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "ray://head:10001",
        "head:0",
        "head:70000",
        ":6379",
        "head:port",
        "a..b:1",
        f"h:{'1' * 5000}",
        "h:٣",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_tried(address):
    with pytest.raises(SpecError, match="is no address of a Ray cluster; give HOST:PORT of its head, or auto"):
        executor.executor_for(address)


def test_an_address_where_nobody_listens_and_a_share_that_is_none_are_refused():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(WorkerError, match=r"nobody listens at 127\.0\.0\.1:"):
            executor.executor_for(f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(WorkerError, match=r"nobody listens at \[::1\]:1 \((Connection refused|Cannot assign)"):
        executor.executor_for("[::1]:1")
    with pytest.raises(SpecError, match="a share of 2 of a GPU is not allowed"):
        executor.executor_for("auto", gpu_share=2)
