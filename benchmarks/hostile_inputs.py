"""Inputs that hurt, class by class: what `benchmarks/faults.py` feeds to the readers.

A class is a function of a source of draws, an empty folder and the sound material; it returns the reading of one
input, as a call. Whatever of it is refused must be refused with an UnfoolError.
"""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hostile_material import LONG, NASTY, NUMBERS, Draw, Material, spoiled_bytes, spoiled_tree
from PIL import Image

from unfool import classify, load_set
from unfool.attacks import make_attack
from unfool.cli import main
from unfool.cli.parsing.tasks import read_tasks
from unfool.cli.usage import parse
from unfool.core.borders.checksum import checksum
from unfool.core.threat import ThreatModel
from unfool.data.catalog import split_sources
from unfool.data.classes.names_file import read_class_names
from unfool.data.decode import CorruptImageError, Framing, decode
from unfool.data.readers.decode_rows import decoded_rows
from unfool.data.sources import Columns
from unfool.defenses import make_defense
from unfool.evaluation.records import Records
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.checkpoints.reader import load_weights, read_states
from unfool.models.foreign import load_classifier
from unfool.models.trunks.base import trunk_spec
from unfool.models.weights import load_network, save_tensors
from unfool.training.config import read_config


def specs(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Attacks, threat models, tasks, trunks, defenses and whole command lines as text."""
    number = draw.choice(NUMBERS)
    text = draw.choice((
        f"pgd-{number}", "pgd-20:restarts=5,step_size=2/255", f"apgd-ce:steps={number}", "aa:version=plus", "fgsm-rs",
        f"pgd:step_size={number}", f"square:p={number}", f"labels:weight={number}", f"contrast:temperature={number}",
        f"reverse:task=labels,steps={number}", f"gate:rate={number},task=labels", f"jigsaw:grid={number}",
        f"convnet:widths={number}-8-8", f"wide-resnet:depth={number}", f"resnet18:stem={LONG}", f"linf:{number}",
        f"l2:{number}/{number}", f"l1: {number}", "rotation:angles=4",
    ))  # fmt: skip
    if draw.random() < 0.6:
        text = spoiled_bytes(text.encode(), draw).decode("utf-8", "replace")
    if draw.random() < 0.05:
        text *= 2000
    option = draw.choice(("--threat", "--eps", "--seed", "--images", "--attack", "--batch-size", "--size", "--claim"))
    more = [option, draw.choice((text, number, "", "-", LONG))]
    readings: list[Callable[[], object]] = [
        lambda: make_attack(text, "linf:8/255"),
        lambda: ThreatModel.parse(text),
        lambda: read_tasks([text], None),
        lambda: trunk_spec(text),
        lambda: make_defense(text, sound.network, {"label": 10}),
        lambda: parse(["evaluate", "runs/a", *more]),
        lambda: main(["list", *more]),
    ]
    return draw.choice(readings)


def yaml(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Configurations of runs."""
    word = draw.choice(("seed", "epochs", "data", "trunk", "tasks", "size", "schema_version", "stages", "nothing"))
    levels = draw.randrange(2, 12)
    aliases = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(levels))
    text = draw.choice((
        sound.config, sound.config, sound.config, f"{sound.config}\n{word}: {draw.choice(NASTY)!r}", aliases,
        sound.config.replace("2", draw.choice(NUMBERS)), "[" * draw.randrange(1, 9000), f"{word}: {'9' * 6000}",
        f"{word}: 2020-01-0{draw.randrange(9)}", f"{word}: !!{draw.choice(('binary', 'set', 'omap', 'timestamp'))} a",
        f"{aliases}\n{word}: *a{levels - 1}", "a: &a [*a]", "- " * draw.randrange(1, 5000), f"? [{word}]\n: a",
        f"{word}: {{<<: [{{a: 1}}, {{b: 2}}]}}", f"{word}: {'1:' * 900}1", '"\\0": 1', "%YAML 9.9\n---",
    ))  # fmt: skip
    data = text.encode("utf-8", "replace")
    path = folder / "config.yaml"
    path.write_bytes(spoiled_bytes(data, draw) if draw.random() < 0.5 else data)
    return lambda: read_config(path)


def json_files(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Results, records with a checksum that fits, and class names."""
    path, kind = folder / "file.json", draw.randrange(8)
    if kind < 4:
        path.write_text(json.dumps(spoiled_tree(sound.results, draw, draw.choice((1, 1, 2, 5)))))
        return lambda: main(["report", str(path)])
    if kind == 4:
        values = spoiled_tree({k: v for k, v in sound.records.items() if k != "checksum"}, draw)
        version = values.pop("schema_version", 1)
        path.write_text(json.dumps({"schema_version": version, **values, "checksum": checksum(values)}))

        def read() -> object:
            records = Records.load(path)
            return records.row("model"), records.to_frame()

        return read
    if kind == 5:
        path.write_text(json.dumps(spoiled_tree({str(n): ["n01440764", "tench"] for n in range(20)}, draw)))
        return lambda: read_class_names(path)
    text = draw.choice(("[" * 50_000, '{"a":' * 9000, "9" * 5000, "1e999", "[" + "[]," * 200_000 + "1]", '"\\ud800"'))
    text = draw.choice((text, '{"schema_version": ' + text, json.dumps(sound.results)))
    path.write_bytes(spoiled_bytes(text.encode(), draw))
    return draw.choice((lambda: StudyResult.load(path), lambda: Records.load(path), lambda: read_class_names(path)))


def weights(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Safetensors with damage, or with another header and a checksum that fits; checkpoints of `torch.save`."""
    kind = draw.randrange(6)
    if kind < 2:
        path = folder / "weights.safetensors"
        path.write_bytes(spoiled_bytes(sound.files["weights.safetensors"], draw))
        return draw.choice((lambda: load_network(path), lambda: read_states(path)))
    if kind == 2:
        path = folder / "weights.safetensors"
        tensors = dict(sound.network.state_dict())
        for name in draw.sample(sorted(tensors), draw.randrange(3)):
            tensors[name] = draw.choice(
                (tensors[name][:0], tensors[name].double(), torch.zeros(3), tensors[name][None])
            )
        save_tensors(path, tensors, spoiled_tree({"architecture": sound.network.architecture}, draw, 2))
        return lambda: load_network(path)
    path = folder / "weights.pt"
    if kind == 3:
        path.write_bytes(spoiled_bytes(sound.files["weights.pt"], draw))
    else:
        with zipfile.ZipFile(io.BytesIO(sound.files["weights.pt"])) as old, zipfile.ZipFile(path, "w") as new:
            way = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename.endswith("data.pkl"):
                    content = spoiled_bytes(content, draw) if draw.random() < 0.8 else _doubling(draw)
                new.writestr(entry.filename, content, way)
    network = copy.deepcopy(sound.network)
    readings = (lambda: read_states(path), lambda: load_weights(network, path), lambda: load_classifier(str(path)))
    return draw.choice(readings)


def _doubling(draw: Draw) -> bytes:
    """A pickle whose value grows with each of its steps."""
    text = b"X" + (6).to_bytes(4, "little") + b"latin1"
    step = draw.choice((b"q\x01h\x00h\x01X\x03\x00\x00\x00hex\x86R", b"2\x86", b"q\x01]h\x01ah\x01a"))
    return b"\x80\x02c_codecs\nencode\nq\x00" + text + text + b"\x86R" + step * draw.randrange(1, 36) + b"."


def sets(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Adversarial sets with other values, other tensors, and checksums that fit."""
    path = folder / "set.safetensors"
    if draw.random() < 0.25:
        path.write_bytes(spoiled_bytes(sound.files["set.safetensors"], draw))
    else:
        manifest, tensors = dict(sound.manifest), dict(sound.tensors)
        if draw.random() < 0.7:
            manifest = spoiled_tree(manifest, draw, draw.choice((1, 1, 2)))
        if draw.random() < 0.5:
            name = draw.choice(sorted(tensors))
            own = tensors[name]
            tensors[name] = draw.choice(
                (own[:0], own[:2], own.double(), own[None], own.reshape(-1), -own, own.int(), own.char(), own + 1000)
            )
        version = manifest.pop("adversarial_set", 3)
        try:
            seal = checksum(manifest, tensors)
        except (TypeError, ValueError):
            seal = ""
        for name in ("schema_version", "file_checksum"):
            manifest.pop(name, None)
        save_tensors(path, tensors, {"adversarial_set": version, **manifest, "checksum": seal})

    def read() -> object:
        records = classify(sound.network, load_set(path))
        records.save(folder / "records.json")
        return Records.load(folder / "records.json").row("model")

    return read


def images(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Damaged pictures of every format, and sound ones of odd shapes."""
    if draw.random() < 0.03:
        buffer = io.BytesIO()
        shape = draw.choice(((2, 30_000), (30_000, 2), (1, 1), (8000, 7999), (3, 3)))
        Image.new(draw.choice(("RGB", "L", "1", "CMYK")), shape).save(buffer, draw.choice(("TIFF", "JPEG")))
        content = buffer.getvalue()
    else:
        content = spoiled_bytes(draw.choice(sound.pictures), draw)
    size = 4096 if draw.random() < 0.005 else draw.choice((None, 8, 16, 32, 224))
    framing = Framing(size, draw.choice((0.0, 0.5, 1.0)))

    def read() -> object:
        try:
            return decode(content, framing)
        except CorruptImageError:  # counted and left out
            return None

    return read


def _rows(name: str, data_dir: Path | None = None) -> list[int]:
    """Read and decode all splits of a set."""
    sources = split_sources(name, data_dir)
    return [sum(1 for _ in decoded_rows(source.rows(Columns()), Framing(8))) for source in sources.values()]


def parquet(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Parquet files with damage, odd columns, metadata and names."""
    (folder / "set").mkdir()
    label = draw.choice(
        ([0, 1, 2], [0, None, 10**8], [-1, 0, 1], ["a", None, "b"], [0.5, 1.0, 2.0], [True, False, True], [2**63] * 3,
         [b"a", b"b", b"c"], [[1], [2], []], [{"a": 1}] * 3)
    )  # fmt: skip
    image = draw.choice((
        [{"bytes": picture, "path": None} for picture in sound.pictures[:3]], sound.pictures[:3], [b"", None, b"x"],
        [{"bytes": None, "path": "/dev/zero"}] * 3, [[1, 2]] * 3, ["/etc/passwd"] * 3,
    ))  # fmt: skip
    table = pa.table({"image": image, draw.choice(("label", "labels", "class", "image2")): label})
    if draw.random() < 0.2:
        table = pa.Table.from_arrays([*table.columns, table.columns[-1]], [*table.column_names, "label"])
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    if draw.random() < 0.5:
        said = json.dumps({"info": {"features": spoiled_tree(features, draw, draw.choice((0, 1, 2)))}})
        said = draw.choice((said, said, "{", "[" * 50_000, "9" * 5000))
        table = table.replace_schema_metadata({b"huggingface": said.encode("utf-8", "replace")})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    content = buffer.getvalue()
    shard = draw.choice(("train", "train", "test", "train-00000-of-00001", f"train-0-of-{'9' * 20}", "train-1-of-2"))
    target = folder / "set" / f"{shard}.parquet"
    target.write_bytes(spoiled_bytes(content, draw) if draw.random() < 0.6 else content)
    return lambda: _rows("set", folder)


def tables(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """CSV files and folders of images."""
    for split in draw.sample(("train", "test", "val", "unlabelled", "a", "b", ".hidden", os.fsdecode(b"\xff")), 3):
        for name in draw.sample(("a", "b", "", os.fsdecode(b"\xfe")), 2):
            inner = folder / "set" / split / name
            inner.mkdir(parents=True, exist_ok=True)
            for number in range(draw.randrange(3)):
                (inner / draw.choice((f"{number}.png", os.fsdecode(b"\xfd.png"), "x.txt"))).write_bytes(
                    draw.choice(sound.pictures)
                )
    odd_thing(folder / "set" / draw.choice(("thing", "thing.png")), draw.choice(("FIFO", "dangling", "loop", "folder")))
    if draw.random() < 0.4:
        return lambda: _rows(f"folder:{folder / 'set'}")
    headers = ("path,label", "path,label,split", "label,path", "file\tlabel", "a,b", "path,path", "", "0.png,1")
    rows = (
        "set/a/0.png,0,train",
        "set/b/a/0.png,1,test",
        "/dev/zero,1,test",
        f"{LONG},1",
        ",,",
        '"',
        "set/thing.png,1",
    )
    header, lines = draw.choice(headers), [draw.choice(rows) for _ in range(draw.randrange(8))]
    content = "\n".join([header, *lines]).encode()
    path = folder / "set.csv"
    path.write_bytes(spoiled_bytes(content, draw) if draw.random() < 0.6 else content)
    return lambda: _rows(str(path))


def odd_thing(path: Path, kind: str) -> None:
    """Put something at a path that is no regular file."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir(exist_ok=True)
    elif kind in ("dangling", "loop"):
        path.symlink_to("nowhere" if kind == "dangling" else path.name)
    elif kind in ("device", "stream"):
        node = path.with_name(f"{path.name}-node")
        try:  # of its own, so that no device of the machine is ever at stake
            os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 7 if kind == "device" else 5))
        except PermissionError:
            os.mkfifo(node)
        path.symlink_to(node.name)


def paths(draw: Draw, folder: Path, sound: Material) -> Callable[[], object]:
    """Paths of every kind in every place where a command takes one; what lies there must stay what it is."""
    kind = draw.choice(("FIFO", "folder", "dangling", "loop", "device", "stream", "none", "file"))
    place = folder / f"thing{draw.choice(('', '.safetensors', '.json', '.pt', '.yaml', '.csv', '.py'))}"
    odd_thing(place, kind)
    if kind == "file":
        place.write_bytes(draw.choice((b"", b"\x00" * 99, b"{}", b"[]", b"a: b", *sound.files.values())))
    path = draw.choice((
        *[str(place)] * 6, LONG, f"{folder}/{LONG}", "x/" * 2100, "~nouser/x", ".", "/", "..", "", " ", "-",
        os.fsdecode(bytes(folder) + b"/\xff"), f"{place}/below", "/proc/self/mem", f"{place}-node",
    ))  # fmt: skip
    own, results = f"{sound.folder}/weights.safetensors", f"{sound.folder}/results.json"
    commands = (
        ["report", path], ["report", path, "--out", f"{folder}/out.html"], ["convert", path, f"{folder}/o.safetensors"],
        ["convert", f"{sound.folder}/weights.pt", path], ["evaluate", path, "--data", "digits", "--images", "1"],
        ["train", "--config", path, "--out", f"{folder}/run"], ["evaluate", own, "--on", path],
        ["evaluate", own, "--data", f"folder:{path}"], ["evaluate", own, "--data", path], ["--plugin", path, "list"],
        ["evaluate", "--model", f"{path}:build", "--data", "digits"], ["doctor", "--data", f"folder:{path}"],
        ["evaluate", own, "--data-dir", path, "--data", "nothing"], ["reverse", path, "a.png"],
        ["report", results, "--out", path], ["report", results, "--publish", path], ["doctor", "--data", path],
    )  # fmt: skip
    arguments = [text.replace("\x00", "") for text in draw.choice(commands)]
    before = os.lstat(place).st_mode if os.path.lexists(place) else None

    def read() -> object:
        code = main(arguments)
        after = os.lstat(place).st_mode if os.path.lexists(place) else None
        if kind not in ("none", "file") and (after is None or before is None or after >> 12 != before >> 12):
            raise AssertionError(f"{kind} was replaced by {' '.join(arguments)[:200]}")
        return code

    return read


CLASSES: dict[str, Callable[[Draw, Path, Material], Callable[[], object]]] = {
    "specs": specs,
    "yaml": yaml,
    "json": json_files,
    "weights": weights,
    "sets": sets,
    "images": images,
    "parquet": parquet,
    "tables": tables,
    "paths": paths,
}
