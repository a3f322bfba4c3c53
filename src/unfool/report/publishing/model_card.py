"""A model card as Markdown: with the header that the Hugging Face hub reads, or as a section of a documentation."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from unfool.models.zoo.model_card import Card, Figure
from unfool.report.publishing.markdown import plain


def card_text(card: Card, system: str) -> str:
    """The whole card: the hub's YAML header, then everything that the card holds; ``system`` as commands name it."""
    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n# {plain(card.name)}\n\n{card_section(card, system)}"


def card_section(card: Card, system: str) -> str:
    """The card below its title; ``system`` is how commands name the network."""
    words, training = card.words, card.training
    blocks = [plain(words.summary)] if words.summary else []
    if words.intended_use:
        blocks.append(f"**Intended use.** {plain(words.intended_use)}")
    if words.limits:
        blocks.append("**Limits.**\n\n" + "\n".join(f"- {plain(limit)}" for limit in words.limits))
    figures = [each for each in (card.clean, card.attacked) if each is not None]
    if figures:
        head = ["| | accuracy, 95 % interval | images | measured by |", "|---|---|---|---|"]
        blocks.append("\n".join([*head, *(_row(card, each) for each in figures)]))
        blocks.append(f"Reliability report: {plain(card.reliability)}." if card.reliability else "")
    else:
        blocks.append("Nobody measured its accuracies yet: `unfool evaluate` does.")
    cost = f"{training.cpu_seconds:,.0f} s of CPU, {training.model_images:,} images through the network"
    facts = {
        "data": plain(card.data),
        "network": f"`{card.trunk}`, heads {', '.join(map(plain, card.heads))}; {card.parameters:,} parameters",
        "recipe": f"`config.yaml`, SHA-256 `{training.recipe_sha256}`",
        "training": f"`{training.command}`; {cost}",
        "weights": f"`weights.safetensors`, {card.weights_bytes:,} bytes, SHA-256 `{card.weights_sha256}`",
        "identity in results": f"`{card.identity}`",
        "training images": f"`{training.images or 'unknown'}`",
        "test images": f"`{card.test_images or 'unknown'}`",
        "versions": ", ".join(f"{name} {plain(version)}" for name, version in card.versions.items()),
        "card written": card.date,
    }
    blocks.append("\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]))
    blocks.append(_fenced("sh", [f"unfool verify {system}", f"unfool evaluate {system} --attack autoattack"]))
    return "\n\n".join(filter(None, blocks)) + "\n"


def card_table(cards: Iterable[tuple[str, Card]]) -> str:
    """Networks side by side, by the name that a command takes."""
    head = ["| network | data | parameters | weights | clean % | under attack % |", "|---|---|---|---|---|---|"]
    rows = [
        f"| `{name}` | {plain(card.data)} | {card.parameters:,} | {card.weights_bytes / 1e6:.2f} MB | "
        f"{_share(card.clean)} | {_share(card.attacked)} |"
        for name, card in cards
    ]
    return "\n".join([*head, *rows]) + "\n"


def _header(card: Card) -> dict[str, object]:
    """What the hub files the network under."""
    metrics = [
        {
            "type": "accuracy",
            "name": "clean accuracy" if each.threat is None else f"accuracy under {each.attack} at {each.threat}",
            "value": round(100 * each.accuracy, 2),
        }
        for each in (card.clean, card.attacked)
        if each is not None
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": card.data, "type": card.data, "split": card.clean.split if card.clean else "test"},
        "metrics": metrics,
    }
    return {
        "license": card.words.licence,
        "library_name": "unfool",
        "pipeline_tag": "image-classification",
        "tags": ["adversarial-robustness", "unfool"],
        "datasets": [card.data],
        **({"model-index": [{"name": card.name, "results": [result]}]} if metrics else {}),
    }


def _row(card: Card, figure: Figure) -> str:
    kind = "clean" if figure.threat is None else f"under {figure.attack} at {figure.threat}"
    whole = f" of {figure.available:,}" if figure.available is not None else ""
    count = f"{figure.images:,}{whole} {plain(card.data)} {figure.split}"
    by = f"`{figure.command}`, {figure.date}" if figure.command else figure.date
    return f"| {plain(kind)} | {figure.words} | {count} | {by} |"


def _share(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    words = figure.words.replace(" %", "")
    return words if figure.threat is None else f"{words}, {plain(figure.attack)} at {figure.threat}, n {figure.images}"


def _fenced(language: str, lines: Iterable[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
