"""Model cards: a true one holds, and every way in which one can be wrong is caught, with and without the images."""

import dataclasses
import shutil

import pytest
import torch

from unfool import EvaluationSettings, evaluate, open_run, open_table, zoo
from unfool.core.errors import ClaimError, DataError, OutputError, SpecError, UnfoolWarning, UnsettledClaimError
from unfool.evaluation.cards import making, measuring
from unfool.evaluation.cards.verification import FAILS, HOLDS, NOT_CHECKED, UNDECIDED, VerificationSettings
from unfool.evaluation.cards.verifying import verify
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.weights import save_network
from unfool.models.zoo.model_card import CARD, Card, Words, file_sha256
from unfool.report.publishing.published_run import publish

ATTACK, THREAT = "fgsm", "linf:2/255"
QUICK = VerificationSettings(images=0)


@pytest.fixture(scope="module")
def results():
    settings = EvaluationSettings(threat=THREAT, reliability=False)
    return evaluate(zoo.load("digits"), "digits", ATTACK, settings=settings, name="digits").result()


@pytest.fixture(scope="module")
def published(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "digits"
    publish(zoo.folder("digits"), folder, "me/digits", results=[results])
    return folder


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "copy")


def verdicts(folder, **settings):
    return {check.name: check.verdict for check in verify(folder, settings=VerificationSettings(**settings)).checks}


def changed(folder, **values):
    card = dataclasses.replace(Card.load(folder / CARD), **values)
    card.save(folder / CARD)
    return card


def raised(figure, by):
    return dataclasses.replace(
        figure, **{key: min(1.0, getattr(figure, key) + by) for key in ("accuracy", "low", "high")}
    )


def test_a_true_card_holds_in_every_point(published):
    verification = verify(published)
    assert verification.verdict == HOLDS
    assert {check.verdict for check in verification.checks} == {HOLDS}
    assert len(verification.checks) == 8
    verification.raise_for_verdict(strict=True)


def test_its_figures_are_those_of_the_results(published, results):
    card = Card.load(published / CARD)
    clean, attacked = results.rows
    for figure, row in ((card.clean, clean), (card.attacked, attacked)):
        assert (figure.accuracy, figure.low, figure.high, figure.images) == (row.accuracy, row.low, row.high, row.n)
    assert (card.attacked.attack, card.attacked.threat, card.attacked.available) == (ATTACK, THREAT, 397)
    assert results.pictures
    assert StudyResult.load(published / "attacked.json").pictures == []


@pytest.mark.parametrize("by", [0.1, -0.1])
def test_an_accuracy_that_is_ten_points_off_is_caught_by_a_fresh_sample(copy, by):
    for name in ("clean.json", "attacked.json"):
        (copy / name).unlink()
    changed(copy, attacked=raised(Card.load(copy / CARD).attacked, by))
    verification = verify(copy)
    (check,) = [each for each in verification.checks if each.name == "accuracy under attack"]
    assert check.verdict == FAILS
    with pytest.raises(ClaimError, match="accuracy under attack: does not hold"):
        verification.raise_for_verdict()


def test_a_clean_accuracy_that_is_ten_points_off_is_caught(copy):
    (copy / "clean.json").unlink()
    changed(copy, clean=raised(Card.load(copy / CARD).clean, -0.1))
    assert verdicts(copy)["clean accuracy"] == FAILS


def test_a_figure_that_is_not_that_of_the_results_is_caught_without_images(copy):
    changed(copy, attacked=raised(Card.load(copy / CARD).attacked, 0.1))
    assert verdicts(copy, images=0)["attacked figure"] == FAILS


def test_a_flipped_bit_in_the_weights_is_caught(copy):
    path = copy / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    caught = verdicts(copy, images=0)
    assert caught["weights"] == FAILS
    # Whoever adapts the card to the file still meets the checksum inside it.
    changed(copy, weights_sha256=file_sha256(path))
    caught = verdicts(copy, images=0)
    assert (caught["weights"], caught["network"]) == (HOLDS, FAILS)


def test_other_weights_under_an_adapted_card_are_caught_by_their_predictions(copy):
    path = copy / "weights.safetensors"
    shutil.copyfile(zoo.folder("digits-robust") / "weights.safetensors", path)
    changed(copy, weights_sha256=file_sha256(path))
    caught = verdicts(copy, images=0)
    assert (caught["weights"], caught["network"], caught["predictions"]) == (HOLDS, HOLDS, FAILS)


def test_another_recipe_is_caught(copy):
    recipe = copy / "config.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.1", "learning_rate: 0.2"))
    assert verdicts(copy, images=0)["recipe"] == FAILS


def test_without_its_images_all_else_is_checked(copy, monkeypatch):
    def missing(*_):
        raise DataError("there are no such images here")

    monkeypatch.setattr(measuring, "split_table", missing)
    verification = verify(copy)
    assert verification.verdict == HOLDS
    (left,) = verification.unchecked
    assert left.verdict == NOT_CHECKED
    assert "for want of data" in left.text
    assert "no such images" in left.text
    verification.raise_for_verdict()
    with pytest.raises(UnsettledClaimError, match="not checked"):
        verification.raise_for_verdict(strict=True)


def test_too_few_images_leave_a_figure_open(copy):
    verification = verify(copy, settings=VerificationSettings(images=16))
    assert verification.verdict == UNDECIDED
    with pytest.raises(UnsettledClaimError, match="accuracy under attack: cannot say") as error:
        verification.raise_for_verdict()
    assert error.value.exit_code == 11


def test_other_test_images_are_named(copy):
    changed(copy, test_images="0" * 32)
    (check,) = [check for check in verify(copy).checks if check.name == "clean accuracy"]
    assert check.verdict == HOLDS
    assert "not the card's own test images" in check.text


def test_results_of_another_network_make_no_card(results, tmp_path):
    with pytest.raises(DataError, match="those of another network"):
        publish(zoo.folder("digits-robust"), tmp_path / "run", "me/run", results=[results])


def card_of(results, before=None):
    return making.make_card(zoo.folder("digits"), "mine", Words(), results, before)[0]


def changed_rows(results, **values):
    """The results with other values in the attacked row."""
    clean, attacked = results.rows
    return dataclasses.replace(results, rows=[clean, dataclasses.replace(attacked, **values)])


def test_examples_of_another_network_make_no_figure_under_attack(results):
    transfer = {"crafted_on": "0" * 16, "protocol": "transfer", "accuracy": 0.0, "low": 0.0}
    card = card_of([changed_rows(results, **transfer)])
    # They were judged on this network, so that the clean row beside them is its own.
    assert card.attacked is None
    assert card.clean.accuracy == results.rows[0].accuracy
    both = dataclasses.replace(results, rows=[*results.rows, changed_rows(results, **transfer).rows[1]])
    assert card_of([both]).attacked.accuracy == results.rows[1].accuracy


def test_a_clean_row_counts_beside_a_row_under_attack_alone(results):
    """It names no system: that of another network, or of another data set, is none of this card."""
    clean, attacked = results.rows
    alone = dataclasses.replace(results, rows=[clean])
    with pytest.raises(DataError, match=r"clean ones beside a row under attack; give what unfool evaluate .* --attack"):
        card_of([alone])
    others = [{"model": "another"}, {"data": "svhn"}, {"defense": "reverse"}, {"settings": {"corruption": "fog"}}]
    for values in others:
        other = dataclasses.replace(clean, **values, accuracy=1.0, high=1.0, n=9999)
        card = card_of([dataclasses.replace(results, rows=[clean, other, attacked])])
        assert card.clean.accuracy == clean.accuracy
    with pytest.raises(DataError, match="no row"):
        card_of([dataclasses.replace(results, rows=[dataclasses.replace(row, data="svhn") for row in results.rows])])


def test_a_card_of_this_very_network_vouches_for_its_own_clean_figure(results):
    """So that a published folder, whose clean file may hold nothing else, is published again."""
    card, alone = card_of([results]), dataclasses.replace(results, rows=results.rows[:1])
    assert card_of([alone], card).clean == card.clean
    for other in (
        dataclasses.replace(card, identity="0" * 16),
        dataclasses.replace(card, clean=raised(card.clean, -0.1)),
    ):
        with pytest.raises(DataError, match="no row"):
            card_of([alone], other)


def test_a_file_that_holds_examples_of_another_network_supports_no_figure(copy, results):
    changed_rows(results, crafted_on="0" * 16, protocol="transfer").save(copy / "attacked.json")
    assert verdicts(copy, images=0)["attacked figure"] == FAILS


def test_figures_that_nothing_supports_stay_open(copy):
    (copy / "clean.json").unlink()
    verification = verify(copy, settings=QUICK)
    assert verification.verdict == UNDECIDED
    (open_,) = [check for check in verification.checks if check.name == "figures"]
    assert "clean accuracy" in open_.text
    assert "under attack" not in open_.text
    with pytest.raises(UnsettledClaimError, match="results files"):
        verification.raise_for_verdict()


def test_a_malformed_card_is_a_file_that_cannot_be_read(copy):
    (copy / CARD).write_text('{"name": "digits", "clen": 3}')
    with pytest.raises(DataError, match=r"'clen'.*did you mean 'clean'"):
        verify(copy)


def test_a_newer_card_is_refused(copy):
    path = copy / CARD
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(SpecError, match="schema version 2"):
        verify(copy)


def test_a_run_without_results_gets_a_card_without_figures(tmp_path):
    source = tmp_path / "run"
    source.mkdir()
    for name in ("config.yaml", "weights.safetensors"):
        shutil.copyfile(zoo.folder("digits") / name, source / name)
    card = publish(source, tmp_path / "out", "me/run")
    assert (card.clean, card.attacked, card.reliability) == (None, None, "")
    assert verify(tmp_path / "out").verdict == HOLDS
    assert "Nobody measured" in (tmp_path / "out" / "README.md").read_text()


def test_the_hash_of_images_is_that_of_their_pixels_and_labels():
    table = open_table("digits", "test")
    assert making.images_hash(table) == making.images_hash(open_table("digits", "test"))
    assert making.images_hash(table.subset(range(396))) != making.images_hash(table)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def full_precision(folder):
    """A run whose weights are not those that half precision rounds them to."""
    folder.mkdir()
    network = zoo.load("digits")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 1e-5)
    save_network(network, folder / "weights.safetensors", {})
    shutil.copyfile(zoo.folder("digits") / "config.yaml", folder / "config.yaml")
    return folder


def test_a_refusal_leaves_the_folder_as_it_is(copy, results, tmp_path):
    before = contents(copy)
    with pytest.raises(DataError, match="those of another network"):
        publish(zoo.folder("digits-robust"), copy, "me/digits", results=[results])
    assert contents(copy) == before
    with pytest.raises(DataError, match="those of another network"):
        publish(zoo.folder("digits-robust"), tmp_path / "fresh", "me/digits", results=[results])
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("stored", [True, False])
def test_results_of_weights_before_they_were_rounded_are_refused_with_a_way_to_go_on(tmp_path, stored):
    run = full_precision(tmp_path / "run")
    settings = EvaluationSettings(threat=THREAT, reliability=False)
    own = evaluate(open_run(run).network, "digits", ATTACK, settings=settings, name="run").result()
    publish(run, run, "me/run", results=[own] if stored else [])
    before = contents(run)
    first = (
        "copy config.yaml and weights.safetensors alone to a folder, push that" if stored else "push without results"
    )
    with pytest.raises(DataError, match=f"rounded weights are another network: {first} with --half --dir FOLDER"):
        publish(run, run, "me/run", results=[] if stored else [own], half=True)
    assert contents(run) == before
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_file_that_cannot_be_written_leaves_the_others_as_they_are(copy, results):
    before = contents(copy)
    (copy / "README.md").unlink()
    (copy / "README.md").mkdir()
    with pytest.raises(OutputError, match="README"):
        publish(zoo.folder("digits"), copy, "me/other", results=[results], words=Words(summary="Other."))
    (copy / "README.md").rmdir()
    assert contents(copy) == {name: content for name, content in before.items() if name != "README.md"}


def test_results_that_count_nothing_are_left_out_with_a_word_beside_others(results):
    alone = dataclasses.replace(results, rows=results.rows[:1], system="clean alone")
    with pytest.warns(UnfoolWarning, match="results of clean alone have no row .*they are left out"):
        card = card_of([alone, results])
    assert card.attacked.accuracy == results.rows[1].accuracy
    with pytest.raises(DataError, match="no row"):
        card_of([alone, alone])
