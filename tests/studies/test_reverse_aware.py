"""The ladder of system B: its defense-aware attack looks at two views, as the reference's does."""

import torch

from unfool import Linf, Network, Streams, TrunkSpec, defenses
from unfool.data.table import Table
from unfool.evaluation.adaptive.defense_aware import DefenseAware
from unfool.studies.reverse_attack.aware import AwareOfTwoViews
from unfool.tasks.contrast import Contrast


def reversal(views, drawn):
    """A reversal with a bank of negatives; all of them have the same weights."""
    heads = {
        "labels": {"kind": "linear", "outputs": 4},
        "contrast": {"kind": "mlp", "hidden": 8, "outputs": 4},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
    images = torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    task = Contrast(Contrast.Settings(negatives="bank", views=views, bank=16, drawn=drawn, size=4, hidden=8))
    table = Table.from_tensors(images, torch.zeros(16, dtype=torch.int64))
    return defenses.Reverse(network, task, threat=Linf(4 / 255), steps=1, calibrate_on=table), images


def losses(rung, views, drawn):
    defense, images = reversal(views, drawn)
    objective = rung.objective(10.0)(defense, torch.zeros(16, dtype=torch.int64), "ce", Streams(3))
    return objective(images, torch.arange(16)).losses, rung.images_per_notice(defense)


def test_the_rung_takes_two_views_and_half_of_the_negatives_of_four():
    ours, count = losses(AwareOfTwoViews(), views=4, drawn=12)
    two, _ = losses(DefenseAware(), views=2, drawn=6)
    four, _ = losses(DefenseAware(), views=4, drawn=12)
    assert torch.equal(ours, two)
    assert not torch.allclose(ours, four)
    assert count == 2


def test_it_is_the_ladder_s_own_where_the_reversal_takes_two_views():
    ours, theirs = (losses(rung, views=2, drawn=6) for rung in (AwareOfTwoViews(), DefenseAware()))
    assert torch.equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]
