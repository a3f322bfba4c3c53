"""What a notebook shows of results: short prints, tables on demand, and pictures of what the attacks did."""

import matplotlib.figure
import pandas
import pytest
import torch
from tiny_systems import make_network, make_table

from unfool import EvaluationSettings, Linf, attacks, classify, craft, evaluate
from unfool.core.errors import DataError, ImagesError, SpecError
from unfool.evaluation.crafting.pictures import magnified_difference, pictures_of


@pytest.fixture(scope="module")
def table():
    return make_table(12)


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def evaluation(network, table):
    settings = EvaluationSettings(reliability=False)
    return evaluate(network, table, ["fgsm", attacks.PGD(Linf(8 / 255), steps=3)], settings=settings, name="<b>")


def test_prints_are_one_short_line(evaluation, network, table):
    examples = craft(network, table, "fgsm")
    for value in (
        evaluation,
        evaluation.records[0],
        *evaluation.rows,
        examples,
        evaluation.result(),
        evaluation.pictures["fgsm"],
    ):
        assert len(repr(value)) < 160
        assert "\n" not in repr(value)


def test_tables_hold_every_row_and_image(evaluation):
    frame = evaluation.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["attack"].tolist() == ["none", "fgsm", "pgd-3", "worst-case"]
    assert frame["accuracy"].tolist() == [row.accuracy for row in evaluation.rows]
    assert frame["model_images"].tolist() == [row.cost.model_images for row in evaluation.rows]
    assert evaluation.result().to_frame().equals(frame)
    records = evaluation.records[1]
    images = records.to_frame()
    assert images["id"].tolist() == records.ids
    assert images["correct"].mean() == pytest.approx(records.accuracy)
    assert images.columns.tolist() == ["id", "label", "correct", "loss", "distance"]


def test_a_notebook_shows_escaped_tables(evaluation):
    for value in (evaluation, evaluation.result(), evaluation.records[0]):
        html = value._repr_html_()
        assert "<b>&lt;" not in html
        assert "<b></td>" not in html
    assert "&lt;b&gt;" in evaluation._repr_html_()
    assert f"{100 * evaluation.rows[0].accuracy:.1f}" in evaluation._repr_html_()


def test_pictures_are_those_of_the_attack(evaluation, network, table):
    examples = craft(network, table, "fgsm")
    pictures = pictures_of(examples, table)
    kept = evaluation.pictures["fgsm"]
    assert torch.equal(pictures.adversarial, kept.adversarial)
    for column, (clean, adversarial) in enumerate(zip(kept.clean, kept.adversarial, strict=True)):
        place = next(at for at, image in enumerate(examples.images) if torch.equal(image, adversarial))
        assert torch.equal(table.batch(torch.tensor([place])).images[0], clean)
        assert kept.labels[column] == table.classes["label"][int(examples.labels[place])]
        assert kept.fooled[column] == bool(examples.fooled_by_part[place] >= 0)
    # Fooled ones that the attack had to perturb come first.
    assert kept.fooled == sorted(kept.fooled, reverse=True)
    for figure in (examples.show(table, 3), evaluation.show(), evaluation.show("pgd-3", count=2)):
        assert isinstance(figure, matplotlib.figure.Figure)
        figure.canvas.draw()
    assert len(examples.show(table, 3).axes) == 9
    assert evaluation.show(count=1).axes[0].get_title() == kept.labels[0]


def test_what_cannot_be_shown_is_said(evaluation, network, table):
    with pytest.raises(SpecError, match="did you mean 'fgsm'"):
        evaluation.show("fgms")
    with pytest.raises(SpecError, match="was not attacked"):
        evaluate(network, table, settings=EvaluationSettings(reliability=False)).show()
    with pytest.raises(DataError, match="lacks an image"):
        craft(network, table, "fgsm").show(table.subset(torch.arange(3)))
    with pytest.raises(ImagesError, match="no difference"):
        magnified_difference(torch.zeros(3, 4, 4), torch.zeros(3, 5, 5))
    assert classify(network, table)._repr_html_().startswith("<code>Records(")
