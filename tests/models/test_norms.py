"""Batch norms by a named context, and with two banks, against plain batch norm and torch's functional form."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfool.core.errors import SpecError
from unfool.models.fast import fast_copy
from unfool.models.norms import BankedBatchNorm2d, CleanBanks, NormContext, bank_norms, norm_context, plain_norms

BATCH, RUNNING = NormContext(statistics="batch"), NormContext(statistics="running")
CLEAN_BATCH = NormContext(statistics="batch", bank="clean")
CLEAN_RUNNING = NormContext(statistics="running", bank="clean")


def make_trunk():
    torch_generator = torch.Generator().manual_seed(0)
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(2), nn.BatchNorm1d(4)
    )
    for value in trunk.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=torch_generator))
    return trunk


def make_images(count=5):
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
def test_a_banked_norm_is_plain_batch_norm_bit_for_bit(training):
    plain = make_trunk().train(training)
    banked = copy.deepcopy(plain)
    assert list(bank_norms(banked)) == ["1", "4"]
    assert torch.equal(plain(make_images()), banked(make_images()))
    assert list(plain.state_dict()) == list(banked.state_dict())
    assert all(torch.equal(value, banked.state_dict()[name]) for name, value in plain.state_dict().items())
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in banked.named_parameters()]
    plain_norms(banked)
    assert [type(part) for part in banked] == [type(part) for part in plain]


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_clean_bank_is_a_second_norm_with_everything_of_its_own(statistics):
    trunk = make_trunk()
    banks = CleanBanks(trunk)
    banks.begin(trunk)
    for bank in banks.norms:
        bank.weight.data.mul_(3)
        bank.running_mean.add_(1)
    main, (first, second) = copy.deepcopy(trunk.state_dict()), [copy.deepcopy(bank) for bank in banks.norms]
    with norm_context(trunk, NormContext(statistics=statistics, bank="clean")):
        features = trunk(make_images())

    def normalised(values, norm):
        return F.batch_norm(
            values, norm.running_mean, norm.running_var, norm.weight, norm.bias, statistics == "batch", 0.1, norm.eps
        )

    expected = normalised(normalised(trunk[0](make_images()), first).relu().flatten(2), second)
    assert torch.equal(features, expected)
    assert torch.equal(banks.norms[0].running_mean, first.running_mean)
    assert all(torch.equal(value, main[name]) for name, value in trunk.state_dict().items())
    features.square().sum().backward()
    assert all(parameter.grad is not None for parameter in banks.parameters())
    assert trunk[1].weight.grad is None
    # A step on the main bank leaves the clean one alone.
    clean = copy.deepcopy(banks.state_dict())
    with norm_context(trunk, BATCH):
        trunk(make_images())
    assert int(trunk[1].num_batches_tracked) == int(main["1.num_batches_tracked"]) + 1
    assert all(torch.equal(value, clean[name]) for name, value in banks.state_dict().items())


@pytest.mark.parametrize("mode", [True, False])
def test_a_context_names_the_statistics_whatever_the_mode_and_leaves_the_mode(mode):
    trunk = make_trunk().train(mode)
    batch, running = copy.deepcopy(trunk).train()(make_images()), copy.deepcopy(trunk).eval()(make_images())
    with norm_context(trunk, RUNNING):
        assert torch.equal(trunk(make_images()), running)
    with norm_context(trunk, BATCH):
        assert torch.equal(trunk(make_images()), batch)
    with pytest.raises(RuntimeError), norm_context(trunk, BATCH):
        trunk(torch.zeros(2, 5, 6, 6))
    assert all(part.training == mode for part in trunk.modules())


def test_what_is_frozen_uses_running_statistics_in_every_context():
    trunk = make_trunk().train()
    with norm_context(trunk, BATCH, frozen=[trunk[1]]):
        assert (trunk[1].training, trunk[4].training) == (False, True)


def test_a_bank_that_is_not_there_is_named_in_one_line():
    with pytest.raises(SpecError, match="clean banks"), norm_context(make_trunk(), CLEAN_RUNNING):
        pass
    trunk = make_trunk()
    bank_norms(trunk)
    with norm_context(trunk, CLEAN_BATCH), pytest.raises(SpecError, match="has none"):
        trunk(make_images())


def test_a_norm_of_a_class_of_its_own_cannot_be_banked():
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(SpecError, match=r"Own of this trunk; build it of nn\.BatchNorm2d, or give statistics='shared'"):
        CleanBanks(nn.Sequential(Own(3)))


def test_a_fast_copy_folds_the_main_bank():
    trunk = make_trunk()[:3].eval()
    expected = fast_copy(trunk)
    banks = CleanBanks(trunk)
    banks.begin(trunk)
    assert isinstance(trunk[1], BankedBatchNorm2d)
    twin = fast_copy(trunk)
    assert [type(part) for part in twin] == [type(part) for part in expected]
    assert torch.equal(twin(make_images()), expected(make_images()))
