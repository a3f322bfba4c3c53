"""Every network of the package: small, whole, without a pixel of its data, and with a card of what was measured."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from unfool import open_run, zoo
from unfool.evaluation.cards.making import OwnRows, figure, measured, reliability_word
from unfool.evaluation.cards.verification import HOLDS, VerificationSettings
from unfool.evaluation.cards.verifying import verify
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.header import read_header
from unfool.models.zoo.model_card import CARD, Card
from unfool.report.publishing.model_card import card_text

MOST_BYTES = 4_000_000
"""All networks together, cards included."""
FEWEST_ATTACKED = 500
FILES = {"README.md", "attacked.json", "card.json", "clean.json", "config.yaml", "weights.safetensors"}


def test_all_of_them_are_small_together():
    files = [path for name in zoo.names() for path in zoo.folder(name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


@pytest.mark.parametrize("name", zoo.names())
class TestNetwork:
    def test_its_folder_is_a_finished_run_in_half_precision(self, name):
        assert {path.name for path in zoo.folder(name).iterdir()} == FILES
        run = open_run(f"zoo:{name}")
        assert run.network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        stored = read_header(zoo.folder(name) / "weights.safetensors").tensors
        assert {kind for key, (kind, _) in stored.items() if key.endswith("weight")} == {"F16"}

    def test_its_card_holds_in_all_that_needs_no_images(self, name):
        verification = verify(zoo.folder(name), settings=VerificationSettings(images=0))
        assert {check.name for check in verification.unchecked} == {"accuracies"}
        assert {check.verdict for check in verification.checks if check.name != "accuracies"} == {HOLDS}

    def test_its_figures_come_from_the_evaluations_beside_it(self, name):
        card = Card.load(zoo.folder(name) / CARD)
        results = [StudyResult.load(zoo.folder(name) / file) for file in ("clean.json", "attacked.json")]
        own_rows = OwnRows(own=card.identity, data=card.data, before=card)
        for said, clean in ((card.clean, True), (card.attacked, False)):
            row, result = measured(results, clean=clean, own_rows=own_rows)
            taken = figure((row, result))
            assert (said.accuracy, said.low, said.high, said.images) == (row.accuracy, row.low, row.high, row.n)
            assert (said.attack, said.threat, said.command, said.date) == (
                taken.attack,
                taken.threat,
                taken.command,
                taken.date,
            )
            assert said.command.startswith(f"unfool evaluate zoo:{name} ")
            assert row.judged_on in (None, card.identity)
        assert card.clean.images == card.clean.available
        assert card.attacked.attack == "autoattack"
        assert card.attacked.images >= min(FEWEST_ATTACKED, card.attacked.available)
        assert card.reliability == reliability_word(results[1])

    def test_its_card_reads_as_it_was_rendered(self, name):
        card = Card.load(zoo.folder(name) / CARD)
        assert (zoo.folder(name) / "README.md").read_text(encoding="utf-8") == card_text(card, f"zoo:{name}")
        assert all((card.words.summary, card.words.intended_use, card.words.limits, card.words.licence))

    def test_nothing_beside_it_shows_an_image(self, name):
        for file in ("clean.json", "attacked.json"):
            assert not {"gallery", "pictures"} & set(json.loads((zoo.folder(name) / file).read_text()))


def test_the_documentation_has_the_cards_of_today():
    path = Path(__file__).parents[2] / "docs" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo_page", path)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.replaced(text), "run python docs/zoo.py --write"
