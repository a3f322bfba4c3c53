"""A classifier with more outputs than the set has classes is evaluated by the names of its outputs."""

import json
import shutil

import numpy as np
from PIL import Image

CODE = """
import torch
from torch import nn

class Bright(nn.Module):
    '''Says output {bright} for bright images and {dark} for dark ones, of {count}.'''

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        level = self.scale * (x.mean((1, 2, 3)) - 0.5)
        logits = torch.zeros(len(x), {count})
        logits[:, {bright}], logits[:, {dark}] = 10 * level + 1, 1 - 10 * level
        return logits

def build():
    return Bright().eval()
"""


def pictures(root, bright, dark):
    for name, value in ((bright, 200), (dark, 40)):
        (root / "test" / name).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(np.full((8, 8, 3), value + index, np.uint8)).save(root / "test" / name / f"{index}.png")
    return f"folder:{root}"


def test_imagenet_is_known_by_its_names(cli, tmp_path):
    (tmp_path / "m.py").write_text(CODE.format(bright=574, dark=497, count=1000))
    data = pictures(tmp_path / "set", "golf_ball", "n03028079")
    done = cli("evaluate", "--model", f"{tmp_path / 'm.py'}:build", "--data", data, "--json")
    (row,) = json.loads(done.out)["rows"]
    assert row["accuracy"] == 1.0
    assert "its classes are taken for those of ImageNet" in done.err


def test_a_file_names_the_outputs(cli, tmp_path):
    (tmp_path / "m.py").write_text(CODE.format(bright=2, dark=0, count=4))
    data = pictures(tmp_path / "set", "lamp", "night")
    (tmp_path / "names.txt").write_text("night\ndusk\nlamp\nsun\n")
    command = ("evaluate", "--model", f"{tmp_path / 'm.py'}:build", "--data", data, "--json")
    (row,) = json.loads(cli(*command, "--classes", tmp_path / "names.txt").out)["rows"]
    assert row["accuracy"] == 1.0
    (tmp_path / "few.txt").write_text("night\nlamp\n")
    assert "names 2 outputs and the classifier has 4" in cli(*command, "--classes", tmp_path / "few.txt").complaint()
    shutil.move(tmp_path / "set" / "test" / "lamp", tmp_path / "set" / "test" / "torch")
    assert "'torch'" in cli(*command, "--classes", tmp_path / "names.txt").complaint()
    assert "no-such-file" in cli(*command, "--classes", tmp_path / "no-such-file").complaint()
