"""What the studies found, a sentence each, from the published results.

python docs/findings.py            # print the sentences
python docs/findings.py --write    # replace them in README.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

from unfool.core.files import write_text
from unfool.evaluation.results.study_result import StudyResult

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- unfool:findings -->", "<!-- /unfool:findings -->"


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
        f"Reversals down inpainting, jigsaw, rotation or contrast are shown to help in {_helps(result)} systems; "
        "averaging as many crops and flips gains more on replayed examples."
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
        result = StudyResult.load(ROOT / "results" / study / "small.json")
        lines.append(f"* {sentence(result)} [{paper}]({address}), [page](docs/studies/{study}.md)")
    return "\n".join(lines)


def _accuracies(result: StudyResult, **wanted: str) -> list[float]:
    rows = result.rows
    for key, value in wanted.items():
        rows = [row for row in rows if row.settings.get(key, getattr(row, key, None)) == value]
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


def main(arguments: Iterable[str]) -> int:
    """Print the sentences, or put them into the README."""
    if "--write" not in arguments:
        print(findings())
        return 0
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    write_text(README, f"{before}{BEGIN}\n{findings()}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
