"""The examples of README and the pages of docs do what they say, and their links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from pages import blocks_of, run_page, unprinted

import unfool
from unfool.cli import main
from unfool.cli.commands import COMMANDS
from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.studies import STUDIES
from unfool.tasks import TASKS, make_task
from unfool.training.stage import Stage
from unfool.training.stage_config import StageConfig, TaskConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("**/*.md"))
STUDY_PAGE = "docs/extend/study.md"
"""Its study is run once, by a test of its own."""


def documents_module(name: str) -> types.ModuleType:
    """A module of docs, which is no package; its modules import each other, as they do when the site is built."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        spec.loader.exec_module(module)
    return module


def python_block(document: str, heading: str = "") -> str:
    """The only Python example of a document, or of the section under a heading."""
    text = (ROOT / document).read_text(encoding="utf-8").partition(heading)[2] if heading else ""
    text = text.partition("\n## ")[0] or (ROOT / document).read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


@pytest.fixture
def scratch(tmp_path, monkeypatch, plugins_undone):
    """An empty folder to work in; modules and plugins that come from it are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNFOOL_DATA_DIR", raising=False)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def makes(words):
    """Runs no target, which CI does, but asks make for its commands, and prints what the demo prints, stored here."""
    made = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    if words[1:] == ["demo"]:
        assert "unfool demo --out runs/demo" in made.stdout
        print((ROOT / "tests/cli/demo.txt").read_text(encoding="utf-8"))


def test_the_readme_is_followed_line_by_line(scratch):
    """From an empty folder: the example prints accuracies, and each command does what is shown below it."""
    printed = run_page(ROOT / "README.md", stand_ins={"make": makes})
    protocols = re.findall(r"^(\S+): ([\d.]+) % \[([\d.]+), ([\d.]+)\]$", printed, re.MULTILINE)
    assert [protocol for protocol, *_ in protocols] == ["clean", "white-box"]
    for _, accuracy, low, high in protocols:
        assert 0 <= float(low) <= float(accuracy) <= float(high) <= 100
    assert float(protocols[0][1]) > 90 > 50 > float(protocols[1][1])
    assert (scratch / "runs/example/weights.safetensors").is_file()


def test_the_readme_is_short_and_its_example_has_ten_lines():
    assert len((ROOT / "README.md").read_bytes()) <= 10_000
    block = python_block("README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_the_sentence_and_the_picture_of_the_readme_are_those_of_the_demo():
    """The same words and figures in README, documentation and picture as in the stored output of the demo."""
    printed = " ".join((ROOT / "tests/cli/demo.txt").read_text(encoding="utf-8").split())
    picture = (ROOT / "docs/images/borrowed.svg").read_text(encoding="utf-8")
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        (sentence,) = re.findall(r"\*\*(The same network, .*?)\*\*", text)
        assert sentence in printed
        for share in re.findall(r"(\d+ %)", sentence):
            assert f">{share}<" in picture
            assert share in re.findall(r"!\[(.*?)\]", text)[0]


def test_the_findings_are_those_of_the_published_results():
    findings = documents_module("findings")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{findings.BEGIN}\n{findings.findings()}\n{findings.END}" in text, "run python docs/findings.py --write"
    assert len(findings.FINDINGS) == 6


def test_the_figures_that_a_studys_page_quotes_are_those_of_the_published_results():
    findings = documents_module("findings")
    for study in STUDIES:
        page = (ROOT / f"docs/studies/{study}.md").read_text(encoding="utf-8")
        assert findings.FIGURE.search(page), f"{study} quotes no figure"
        assert page == findings.with_figures(page, study), "run python docs/findings.py --write"
        assert page.count("<!--= ") == len(findings.FIGURE.findall(page)), f"a mark of {study} has no end on its line"
        # A comment at the start of a line would end the paragraph.
        assert not re.search("^<!--[=/]", page, re.MULTILINE)


def test_the_marks_of_figures_name_claims_ladders_and_rows():
    findings = documents_module("findings")
    text = "<!--= small best-stage -->?<!--/--> <!--= small best-stage.verdict -->?<!--/-->"
    shown = re.sub("<!--.*?-->", "", findings.with_figures(text, "noisy-rotation"))
    assert shown == "-8.1 points [-9.2, -7.1] not reproduced"
    text = '<!--= small "model=TRADES-6" attack=none --><!--/-->, <!--= small ladders --><!--/-->'
    assert re.sub("<!--.*?-->", "", findings.with_figures(text, "adversarial-training")) == "51.2 %, none of 0"


def test_published_results_have_the_texts_and_verdicts_of_the_studies_of_today():
    findings = documents_module("findings")
    for study in STUDIES:
        for file in (ROOT / "results" / study).glob("*.json"):
            assert StudyResult.load(file) == findings.today(file), f"{file}: run python docs/findings.py --write"


@pytest.fixture
def mirror(monkeypatch):
    """The task of the documentation, registered for one test."""
    name = "mirror"
    list(TASKS)
    block = python_block("docs/extend/task.md")
    module = types.ModuleType("contributed")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)
    yield name
    TASKS._items.pop(name)


def test_the_contributed_task_has_forty_lines_and_learns(mirror):
    assert len(python_block("docs/extend/task.md").splitlines()) <= 50
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), {})
    config = StageConfig(tasks={mirror: TaskConfig(task=mirror)})
    stage = Stage(config, network, {}, Streams(0))
    # Bright above, dark below: upright and turned images are told apart at a glance.
    images = torch.linspace(1, 0, 32)[None, None, :, None].expand(64, 3, 32, 32).contiguous()
    batch = Batch(images=images, ids=torch.arange(64))
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.01)
    losses = []
    for step in range(30):
        found, _ = stage(batch, Streams(0).at(step))
        losses.append(float(stage.total(found).detach()))
        optimizer.zero_grad()
        stage.total(found).backward()
        optimizer.step()
    assert losses[-1] < 0.1 < losses[0]
    assert make_task(mirror).views(batch, None).images.equal(images)


def test_readme_and_quickstart_lead_to_every_command_and_the_make_targets_exist():
    documents = [ROOT / "README.md", *PAGES]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        assert f"unfool {command}" in text, command
    targets = {
        target for target in re.findall(r"^make (\w+)|`make (\w+)", text, re.MULTILINE) for target in target if target
    }
    assert targets >= {"demo", "test", "docs"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for judge in ("faults", "kills", "mutants", "processes"):
        assert re.search(rf"^{judge}: .*\n\t\$\(BIN\)/python benchmarks/{judge}\.py", makefile, re.MULTILINE), judge
        assert f'"make {judge} ' in makefile


def shell_commands(path: Path) -> list[list[str]]:
    """The arguments of each ``unfool`` command of a document's shell examples, comments and redirections left out."""
    blocks = blocks_of(path.read_text(encoding="utf-8"))
    lines = "\n".join(block.text for block in blocks if block.kind == "sh").replace("\\\n", " ")
    launcher = r"(?:(?:srun .*?)?(?:torchrun|accelerate launch) .*?-m )?"
    matches = [re.match(rf"\s*{launcher}unfool (.+)", line) for line in lines.splitlines()]
    return [shlex.split(match[1].partition(" > ")[0], comments=True) for match in matches if match is not None]


def test_every_command_of_the_documents_is_understood():
    """Those of blocks that are not run too."""
    from unfool.cli.usage import parse

    commands = [words for path in (ROOT / "README.md", *PAGES) for words in shell_commands(path)]
    assert len(commands) >= 40
    for words in commands:
        plain = (
            words[: words.index("--plugin")] + words[words.index("--plugin") + 2 :] if "--plugin" in words else words
        )
        assert parse(plain) is not None, words


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_inside_the_repository_lead_to_files(name):
    """Those between pages of docs are checked when the site is built."""
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (ROOT / link.partition("#")[0]).is_file()]
    assert broken == []


def test_the_citation_and_the_package_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project


def test_the_contributed_study_is_trained_attacked_and_judged(scratch, monkeypatch, capsys):
    """Its worker processes find it by its file alone; a second call makes nothing again."""
    assert len(python_block(STUDY_PAGE).splitlines()) <= 60
    # Two even where there is one core: with one, the study is made in this process.
    monkeypatch.setattr("unfool.core.parallel.executor.workers_for", lambda device: 2)
    run_page(ROOT / STUDY_PAGE)
    out = Path("runs/wider")
    first = json.loads((out / "results/my-study/demo.json").read_text(encoding="utf-8"))
    assert main(["study", "my_study.py", "--out", str(out), "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**first, "page": str(out / "report.html")}
    rows, claims, (chart,) = (first[key] for key in ("rows", "claims", "charts"))
    assert (first["study"], len(rows)) == ("my-study", 2 * 2 * 3)
    assert {(row["model"], row["seed"]) for row in rows} == {(m, s) for m in ("narrow", "wide") for s in (0, 1)}
    assert [claim["id"] for claim in claims] == ["wider-fgsm", "wider-pgd-20"]
    assert all("over 2 training seeds" in claim["evidence"] for claim in claims)
    assert [series["name"] for series in chart["series"]] == ["fgsm", "pgd-20"]
    assert "Is a wider network more robust?" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != ROOT / STUDY_PAGE], ids=lambda page: str(page.relative_to(ROOT / "docs"))
)
def test_a_page_does_what_it_shows(page, scratch):
    """Every block is run and prints what is shown, unless the page says why it is not run; that on studies above."""
    run_page(page)


def test_every_study_has_a_page_that_is_filled_from_its_results():
    published = documents_module("published")
    for name in STUDIES:
        page = (ROOT / f"docs/studies/{name}.md").read_text(encoding="utf-8")
        assert published.MARKER.findall(page) == [name]
    text = published.filled(page)
    assert "<!-- unfool:results" not in text
    result = StudyResult.load(ROOT / f"results/{name}/small.json")
    assert text.count("\n- **") >= len(result.claims)
    assert "| paper % |" in published.filled("<!-- unfool:results contrastive-multitask -->")


def test_results_of_a_study_stand_with_the_largest_scale_first(tmp_path):
    published = documents_module("published")
    (tmp_path / "made-up").mkdir()
    for scale in ("demo", "source", "small"):
        StudyResult(study="made-up", scale=scale).save(tmp_path / f"made-up/{scale}.json")
    text = published.filled("# Title\n\n<!-- unfool:results made-up -->\n\nafter", tmp_path)
    assert re.findall(r"^## Results at scale (\w+)", text, re.MULTILINE) == ["source", "small", "demo"]
    assert text.endswith("after")
    with pytest.raises(published.MissingResultsError, match="no results of unknown"):
        published.filled("<!-- unfool:results unknown -->", tmp_path)


def test_the_reference_lists_every_public_name():
    listed = re.findall(r"^   unfool\.(\S+)$", (ROOT / "docs/api/index.rst").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    rooms = {room: importlib.import_module(f"unfool.{room}") for room in unfool._ROOMS}
    for name in {*unfool.__all__} - {"__version__", *unfool._ROOMS}:
        shown = {each.rpartition(".")[2] for each in listed}
        assert name in shown, name
    for name in listed:
        room, _, own = name.rpartition(".")
        assert hasattr(rooms[room] if room else unfool, own), name


def test_the_hardened_weights_are_loaded_by_ten_lines_without_unfool():
    blocks = blocks_of((ROOT / "docs/harden.md").read_text(encoding="utf-8"))
    (script,) = [block.text for block in blocks if block.text.startswith("# predict.py")]
    assert "unfool" not in script
    assert len([line for line in script.splitlines()[1:] if line.strip()]) <= 10


def test_shown_output_is_compared_line_by_line_but_for_numbers():
    printed = "none   98.0  [93.0, 99.4]\n\nRobust accuracy 48.0 %, believed\nlast"
    assert unprinted("none 12 [1, 2.5]\n...\nRobust accuracy 3.5 %, believed", printed) is None
    assert unprinted("Robust accuracy 48.0 %, doubted", printed) == "Robust accuracy 48.0 %, doubted"
    assert unprinted("last\nnone 98.0 [93.0, 99.4]", printed) == "none 98.0 [93.0, 99.4]"
