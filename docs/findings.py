"""What the studies found, in words, from the published results.

python docs/findings.py            # print a sentence each
python docs/findings.py --write    # judge results/ anew, and fill in README.md and docs/studies

On the page of a study a figure stands between a mark, which names it, and ``<!--/-->``; no line begins with a mark,
which would end its paragraph. Marks: ``<!--= SCALE CLAIM -->`` is the figure of a claim, ``<!--= SCALE CLAIM.FIELD
-->`` another of its fields (``first``: the first sentence of its evidence), ``<!--= SCALE ladders -->`` how many
ladders show that a defense helps, and ``<!--= SCALE NAME=VALUE … -->`` the mean accuracy of the rows whose fields and
settings are these.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

from unfool.core.files import write_text
from unfool.evaluation.results.study_result import StudyResult
from unfool.studies import STUDIES
from unfool.studies.framework.judging_anew import judged_anew

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, PAGES = ROOT / "README.md", ROOT / "results", ROOT / "docs" / "studies"
BEGIN, END = "<!-- unfool:findings -->", "<!-- /unfool:findings -->"
FIGURE = re.compile(r"(<!--= (\S+) (.+?) -->)(.*?)(<!--/-->)")


def contrast(result: StudyResult) -> str:
    words = {"data": "cifar10", "attack": "pgd-7", "protocol": "transfer"}
    learnt = {"model": "simclr multitask", "loss": "as written: 0.5 labels + 1 contrast"}
    itself = {"data": "cifar10", "attack": "pgd-50", "protocol": "white-box"}
    return (
        "A classifier that also learns contrast is reported to keep 60 % under PGD; here it keeps "
        f"{_mean(result, **words, **learnt)} of examples that were made for *another* network (without contrast, on "
        f"the same views, {_mean(result, **words, model='labels on SimCLR views')}), and "
        f"{_mean(result, **itself, **learnt)} when it is attacked itself."
    )


def reversal(result: StudyResult) -> str:
    return (
        f"Moving an image down a contrastive loss before classifying it is shown to help in {_helps(result)} "
        "defenses, once the attacker knows of it."
    )


def transfer(result: StudyResult) -> str:
    words = {"attack": "autoattack", "data": "cifar10", "labels": "100 %", "fine_tuned_on": "FGSM examples"}
    pretrained = _mean(result, model="simclr", moved="the added layer", **words)
    trained = _mean(result, model="FGSM-RS training, a quarter of the cost", **words)
    return (
        f"SimCLR pretraining with a robustly trained last layer keeps {pretrained} under AutoAttack, FGSM-RS "
        f"training of the whole network at a quarter of the cost {trained}."
    )


def auxiliaries(result: StudyResult) -> str:
    return (
        f"Reversals down inpainting, jigsaw, rotation or contrast, gated or not, are shown to help in {_helps(result)} "
        "systems; on replayed examples averaging as many crops and flips gained more, in the mean of every group."
    )


def rotation(result: StudyResult) -> str:
    def best(claim: str) -> list[str]:
        """The best stages of what a claim compares, as chosen on held-out images."""
        evidence = next(each for each in result.claims if each.id == claim).sentences[0]
        return re.findall(r"[\d.]+ % on", evidence)

    (noise, plain), (_, longer) = best("best-stage"), best("cost")
    noise, plain, longer = (text.removesuffix(" on") for text in (noise, plain, longer))
    return (
        "Adversarial noise while pretraining on rotation gives features that classify "
        f"{noise}, plain rotation {plain}, and rotation that ran for as long {longer}."
    )


def adversarial(result: StudyResult) -> str:
    def kept(model: str) -> str:
        return _mean(result, model=model, attack="pgd-50", split="test")

    evidence = next(claim for claim in result.claims if claim.text.startswith("FGSM-RS costs")).sentences[0]
    ours, theirs = (int(number.replace(",", "")) for number in re.findall(r"\d[\d,]+", evidence)[:2])
    return (
        f"What works is adversarial training: in one step (FGSM-RS) it keeps {kept('FGSM-RS')} under PGD-50 for "
        f"{ours / theirs:.2f} of the passes of PGD-10, which keeps {kept('PGD-10')}."
    )


FINDINGS: dict[str, tuple[str, str, Callable[[StudyResult], str]]] = {
    "contrastive-multitask": ("SimCLR", "https://arxiv.org/abs/2002.05709", contrast),
    "reverse-attack": ("Mao et al. 2021", "https://arxiv.org/abs/2103.14222", reversal),
    "transfer": ("Jiang et al. 2020", "https://arxiv.org/abs/2010.13337", transfer),
    "auxiliary-reversal": ("Pathak et al. 2016", "https://arxiv.org/abs/1604.07379", auxiliaries),
    "noisy-rotation": ("Gidaris et al. 2018", "https://arxiv.org/abs/1803.07728", rotation),
    "adversarial-training": ("Wong et al. 2020", "https://arxiv.org/abs/2001.03994", adversarial),
}
"""By study: the paper that it rests on, its address, and the sentence."""


def findings() -> str:
    """The sentences as a Markdown list, each with its paper and page."""
    lines: list[str] = []
    for study, (paper, address, sentence) in FINDINGS.items():
        result = StudyResult.load(RESULTS / study / "small.json")
        lines.append(f"* {sentence(result)} [{paper}]({address}), [page](docs/studies/{study}.md)")
    return "\n".join(lines)


def _accuracies(result: StudyResult, **wanted: str) -> list[float]:
    rows = result.rows
    for key, value in wanted.items():
        rows = [row for row in rows if str(row.settings.get(key, getattr(row, key, None))) == value]
    return [row.accuracy for row in rows]


def _mean(result: StudyResult, **wanted: str) -> str:
    return f"{100 * mean(_accuracies(result, **wanted)):.1f} %"


def _helps(result: StudyResult) -> str:
    """How many of the adaptive ladders show that the defense helps: ``none of 22``."""
    verdicts = [claim.verdict for claim in result.claims if _by_itself(claim.text)]
    helping = verdicts.count("holds")
    return f"{helping or 'none'} of {len(verdicts)}"


def _by_itself(text: str) -> bool:
    return "more robust than it is by itself" in text


def with_figures(page: str, study: str) -> str:
    """The page of a study with its marked figures as the published results have them."""

    def figure(match: re.Match[str]) -> str:
        result = StudyResult.load(RESULTS / study / f"{match[2]}.json")
        return f"{match[1]}{_figure(result, match[3])}{match[5]}"

    return FIGURE.sub(figure, page)


def _figure(result: StudyResult, mark: str) -> str:
    if "=" in mark:
        return _mean(result, **dict(word.split("=", 1) for word in shlex.split(mark)))
    if mark == "ladders":
        return _helps(result)
    claim, _, field = mark.partition(".")
    judged = next(each for each in result.claims if each.id == claim)
    if field == "first":
        return f"{judged.sentences[0].partition('. ')[0]}."
    return str(getattr(judged, field or "figure"))


def today(file: Path) -> StudyResult:
    """Published results with the texts and verdicts that the study gives them today."""
    result = StudyResult.load(file)
    return judged_anew(STUDIES[result.study](), result, file.parent)


def main(arguments: Iterable[str]) -> int:
    """Print the sentences; or judge the published results anew, and put the sentences and the figures of the studies'
    pages where they belong."""
    if "--write" not in arguments:
        print(findings())
        return 0
    for study in FINDINGS:
        for file in (RESULTS / study).glob("*.json"):
            today(file).save(file)
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    write_text(README, f"{before}{BEGIN}\n{findings()}\n{END}{rest.partition(END)[2]}")
    for study in FINDINGS:
        page = PAGES / f"{study}.md"
        write_text(page, with_figures(page.read_text(encoding="utf-8"), study))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
