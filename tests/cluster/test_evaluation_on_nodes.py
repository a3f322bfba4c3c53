"""Evaluations and attacks on three nodes that share no disk: what they print and write is that of one process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from three_nodes import ADDRESS

import unfool
from unfool import load_set

pytestmark = pytest.mark.cluster

SOURCE = Path(unfool.__file__).parents[1]
TIMES = {"run", "cost", "seconds", "cpu_seconds", "out"}


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def both(nodes, tmp_path):
    """Run a command on the cluster, and in one process; give what both print."""

    def ran(*words):
        command = [sys.executable, "-m", "unfool", *map(str, words), "--json"]
        told = {}
        for name, more in (("cluster", ("--cluster", ADDRESS)), ("alone", ())):
            (tmp_path / name).mkdir(exist_ok=True)
            process = nodes.popen(
                [*command, *more], source=SOURCE, cwd=tmp_path / name, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, errors = process.communicate(timeout=180)
            assert process.returncode == 0, errors
            assert "Traceback" not in errors
            told[name] = without_times(json.loads(out))
        return told

    return ran


@pytest.fixture
def mine(nodes):
    """A classifier in a file that imports another one, its weights, and images: all where only the asker sees them."""
    folder = nodes.hidden / "mine"
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "body.py").write_text(
        "import torch\n\n\ndef layers():\n"
        "    return [torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)]\n"
    )
    (folder / "mine.py").write_text(
        "import torch\n\nfrom parts.body import layers\n\n\ndef build():\n    return torch.nn.Sequential(*layers())\n"
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    )
    safetensors.torch.save_file(model.state_dict(), folder / "mine.safetensors")
    generator, lines = torch.Generator().manual_seed(0), ["path,label"]
    for number in range(90):
        name = f"class-{number % 3}/{number}.png"
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / "pictures" / name)
        lines.append(f"pictures/{name},{number % 3}")
    (folder / "set.csv").write_text("\n".join(lines))
    yield folder
    shutil.rmtree(folder)


def test_a_classifier_and_images_that_the_asker_alone_has_are_evaluated_there_as_here(both, mine, tmp_path):
    system = ["--model", f"{mine / 'mine.py'}:build", "--weights", mine / "mine.safetensors"]
    own = [*system, "--data", f"folder:{mine / 'pictures'}"]
    some = ["--images", "18", "--batch-size", "8"]
    told = both("evaluate", *own, *some, "--attack", "pgd-2", "--attack", "fgsm", "--no-reliability")
    assert told["cluster"] == told["alone"]
    told = both("attack", *system, "--data", mine / "set.csv", *some, "--attack", "pgd-2", "--out", "set.safetensors")
    assert told["cluster"] == told["alone"]
    one, other = (load_set(tmp_path / name / "set.safetensors") for name in told)
    assert torch.equal(one.images, other.images)
    assert one.crafted_on == other.crafted_on
    assert not list((tmp_path / "cluster").glob("*.state"))
    told = both("probe", *own, "--stages", "1", "--epochs", "2")
    assert told["cluster"] == told["alone"]
