"""Container, editor, commit hooks and workflow: each is well-formed, and what it names is there."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from unfool.cli.usage import parse

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def instructions():
    """Each instruction of the Dockerfile with its arguments, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line]


def test_the_image_is_slim_runs_as_no_root_and_is_the_command():
    named = instructions()
    assert {name for name, _ in named} <= {"FROM", "WORKDIR", "COPY", "RUN", "ARG", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert [text.split()[0] for name, text in named if name == "FROM"] == [f"python:{PYTHONS[-1]}-slim"] * 2
    last = {name: text for name, text in named if name in ("USER", "ENTRYPOINT", "CMD")}
    assert last["USER"] not in ("root", "0")
    assert (json.loads(last["ENTRYPOINT"]), json.loads(last["CMD"])) == (["unfool"], ["--help"])
    (torch,) = re.findall(r'ARG TORCH="(.*)"', (ROOT / "Dockerfile").read_text())
    assert torch in PROJECT["dependencies"]


def test_the_image_is_built_from_files_that_are_there_and_not_ignored():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [source for name, text in instructions() if name == "COPY" for source in text.split()[:-1]]
    assert sorted(sources) == sorted(kept)
    assert all((ROOT / source).exists() for source in sources)


def test_the_command_in_the_dockerfile_is_understood():
    (line,) = re.findall(r"docker run .* unfool (evaluate .*)", (ROOT / "Dockerfile").read_text())
    assert parse(shlex.split(line)) is not None


def test_the_editor_s_container_makes_the_environment_of_the_makefile():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert PYTHONS[-1] in container["image"]
    for target in re.findall(r"make (\w+)", container["postCreateCommand"]):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        ".venv/bin/python"
    )


def test_commit_hooks_name_programs_that_are_there():
    config = read(".pre-commit-config.yaml")
    hooks = {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "layers"} <= set(hooks)
    for hook in hooks.values():
        if "entry" in hook:
            assert hook["name"]
            assert hook["language"] == "system"
            re.compile(hook["files"])
            file = hook["entry"].split()[-1 if "pytest" in hook["entry"] else 1]
            assert (ROOT / file).is_file(), file


def test_the_workflow_runs_ci_on_every_python_that_the_package_names():
    workflow = read(".github/workflows/ci.yml")
    assert set(workflow[True]) == {"push", "pull_request"}, "YAML reads `on` as true"
    test = workflow["jobs"]["test"]
    assert test["strategy"]["matrix"]["python"] == PYTHONS
    assert {"run": "bash .ci/run"} in test["steps"]
    assert (ROOT / ".ci/run").is_file()
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert all(re.fullmatch(r"[\w./-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert workflow["permissions"] == {"contents": "read"}


def test_ci_makes_targets_that_are_there():
    lines = re.findall(r"^(?:nice )?make ([^&\n]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    words = [word for line in lines for word in shlex.split(line)]
    # The README's command, with the demos of all studies, which it leaves out by itself.
    assert words[words.index("test") + 1] == 'WHICH=-m "not cluster"'
    assert re.search(r"^test: .*\n\t.* -m pytest -n 2 \$\(WHICH\)$", MAKEFILE, re.MULTILINE)
    for target in words:
        if target.startswith(("--", ".venv/", "WHICH=")):
            continue
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
        assert re.search(rf"\.PHONY:.*\b{target}\b", MAKEFILE), target


@pytest.mark.parametrize("key", ["requires-python", "ruff", "pyright"])
def test_the_oldest_python_is_the_same_everywhere(key):
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    oldest = {
        "requires-python": PROJECT["requires-python"],
        "ruff": tools["ruff"]["target-version"],
        "pyright": tools["pyright"]["pythonVersion"],
    }
    assert PYTHONS[0] == "3.11"
    assert oldest[key] == {"requires-python": ">=3.11", "ruff": "py311", "pyright": "3.11"}[key]


def test_extras_that_documents_name_are_there():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    extras = {name for names in re.findall(r"unfool\[([\w,]+)\]", text) for name in names.split(",")}
    assert extras
    assert extras <= set(PROJECT["optional-dependencies"])
