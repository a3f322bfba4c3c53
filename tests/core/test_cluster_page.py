"""The files that the page of clusters shows are those that Ray takes."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")


def folder_of_ray():
    spec = importlib.util.find_spec("ray")
    if spec is None:
        pytest.skip("the package ray is not installed (extra cluster)")
    return Path(spec.origin).parent


def test_the_file_for_ray_up_has_the_fields_that_ray_knows():
    """The schema is that of a file whose defaults are filled in; what is written must be part of it."""
    schema = json.loads((folder_of_ray() / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values = yaml.safe_load(text)
    assert values.keys() <= schema["properties"].keys()
    for part in ("provider", "auth"):
        assert values[part].keys() <= schema["properties"][part]["properties"].keys()
    for name, commands in values.items():
        if name.endswith("_commands"):
            assert all(isinstance(command, str) for command in commands)


def test_the_options_of_ray_are_there():
    """In the source of its command line, since asking it for help takes seconds a command."""
    folder = folder_of_ray()
    sources = [folder / "scripts" / name for name in ("scripts.py", "symmetric_run.py")]
    sources.append(folder / "dashboard" / "modules" / "job" / "cli.py")
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    blocks = re.findall(r"```(?:sh|yaml)\n(.*?)```", PAGE, re.DOTALL)
    commands = [
        part for block in blocks for part in re.findall(r"\bray ([a-z-]+.*?)(?: -- | --$|\n(?!  )|$)", block, re.DOTALL)
    ]
    assert len(commands) >= 8
    for command in commands:
        for option in re.findall(r"(?<=\s)--[a-z-]+", command):
            assert f'"{option}"' in text, (command, option)


def test_the_batch_file_is_a_shell_script():
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SBATCH --ntasks-per-node=1" in script
