"""Crafting that is stopped goes on to the bit; several processes make what one makes; batches fit the memory."""

import warnings
from pathlib import Path

import pytest
import torch
import two_crafters
from programs import run_calls, run_program
from tiny_systems import make_network, make_table
from torch import nn

from unfool import EvaluationSettings, evaluate
from unfool.attacks import CustomAttack, ProxySettings, make_attack
from unfool.attacks.proxy import SurrogateSettings
from unfool.core.errors import ImagesError, OutputError, UnfoolWarning
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation import classify, craft
from unfool.evaluation.crafting import batches
from unfool.evaluation.crafting.batches import fitting, spans
from unfool.evaluation.crafting.evaluation_folder import discard
from unfool.evaluation.crafting.plan import plan_crafting

HERE = Path(__file__).parent
THREAT = "linf:2/255"


def test_killed_five_times_at_odd_moments_and_resumed_it_gives_the_same_bits(tmp_path):
    done = run_program(HERE / "kill_crafting.py", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    words = done.stdout.split()
    assert int(words[0]) == 5, "deaths"
    assert int(words[2]) > 0, "fooled"


def test_a_finished_folder_is_read_and_not_crafted_again(tmp_path):
    network, table, attack = make_network(), make_table(12), make_attack("pgd-3", THREAT)
    first = craft(network, table, attack, folder=tmp_path / "kept", batch_size=5)

    def fails(module, inputs):
        raise AssertionError("the model was run again")

    told = []
    handle = network.trunk.register_forward_pre_hook(fails)
    try:
        with pytest.raises(OutputError, match="crafted_on"):
            craft(network, table, attack, folder=tmp_path / "kept", batch_size=5)
    finally:
        handle.remove()
    again = craft(network, table, attack, folder=tmp_path / "kept", progress=lambda what, *done: told.append(done))
    assert torch.equal(first.images, again.images)
    assert first.cpu_seconds == again.cpu_seconds
    assert told == [(0, 12), (5, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize("stored", [True, False])
def test_parts_of_an_ensemble_are_reported_within_a_batch(tmp_path, stored):
    parts = make_attack("fgsm", THREAT).parts + make_attack("pgd-1", THREAT).parts
    attack = CustomAttack(ThreatModel.parse(THREAT), label="two", components=parts)
    told = []
    folder = tmp_path if stored else None
    craft(make_network(), make_table(12), attack, folder=folder, progress=lambda what, *done: told.append(done))
    assert told == [(0, 12), (4, 12), (8, 12), (12, 12)]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"attack": "pgd-4"}, "attack"),
        ({"batch_size": 6}, "batch_size"),
        ({"count": 11}, "ids"),
        ({"brighter": 1}, "images"),
        ({"column": "parity"}, "column"),
        ({"swapped": True}, "labels"),
    ],
)
def test_a_folder_of_another_crafting_is_refused(tmp_path, changed, named):
    def crafted(attack="pgd-3", seed=0, batch_size=5, count=12, brighter=0, column="label", swapped=False):
        whole = make_table(12)
        images, labels = whole.images.clone(), {name: values.clone() for name, values in whole.columns.items()}
        images[-1, 0, 0, 0] += brighter
        if swapped:
            labels["label"][:2] = 3 - labels["label"][:2]
        table = Table.from_tensors(images, labels, ids=whole.ids, name="made-up").subset(torch.arange(count))
        return craft(
            make_network(),
            table,
            make_attack(attack, THREAT),
            column=column,
            seed=seed,
            batch_size=batch_size,
            folder=tmp_path,
        )

    crafted()
    with pytest.raises(OutputError, match=f"holds another evaluation: {named} is"):
        crafted(**changed)
    crafted()


def _fails(*arguments, **settings):
    raise AssertionError("the model was run again")


def test_of_a_large_set_several_batches_are_attacked_together(tmp_path, monkeypatch):
    network, table = make_network(), make_table(24)
    attack = make_attack("autoattack:steps=5,queries=20", THREAT)
    monkeypatch.setattr("unfool.evaluation.crafting.plan.fitting", lambda model, image: 3)
    plain = craft(network, table, attack, folder=tmp_path / "plain")
    assert len(list((tmp_path / "plain").glob("batch-*"))) == 8
    monkeypatch.setattr(batches, "PIECES", 2)
    told = []
    together = craft(
        network, table, attack, folder=tmp_path / "together", progress=lambda what, *done: told.append(done)
    )
    assert len(list((tmp_path / "together").glob("batch-*"))) == 2
    craft(network, table, attack, folder=tmp_path / "asked", batch_size=3)
    assert len(list((tmp_path / "asked").glob("batch-*"))) == 8
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)
    assert torch.allclose(together.images, plain.images, atol=1e-6)
    for name in ("fooled_by_part", "labels", "ids"):
        assert torch.equal(getattr(together, name), getattr(plain, name))
    # What was begun one way goes on so.
    monkeypatch.setattr("unfool.evaluation.crafting.crafted_batches.Crafting._crafted", _fails)
    assert torch.equal(craft(network, table, attack, folder=tmp_path / "plain").images, plain.images)
    monkeypatch.undo()
    monkeypatch.setattr("unfool.evaluation.crafting.crafted_batches.Crafting._crafted", _fails)
    assert torch.equal(craft(network, table, attack, folder=tmp_path / "together").images, together.images)


def test_a_folder_of_pieces_is_refused_where_batches_are_asked_for(tmp_path, monkeypatch):
    network, table = make_network(), make_table(12)
    attack = make_attack("autoattack:steps=2,queries=5", THREAT)
    monkeypatch.setattr("unfool.evaluation.crafting.plan.fitting", lambda model, image: 3)
    monkeypatch.setattr(batches, "PIECES", 2)
    craft(network, table, attack, folder=tmp_path / "pieces")
    with pytest.raises(OutputError, match="begun with 2 batches taken together, and 1 would be here"):
        craft(network, table, attack, folder=tmp_path / "pieces", batch_size=3)


def test_attacks_of_one_part_models_with_a_batch_of_their_own_and_surrogates_take_batches_one_by_one(monkeypatch):
    monkeypatch.setattr("unfool.evaluation.crafting.plan.fitting", lambda model, image: 3)
    monkeypatch.setattr(batches, "PIECES", 2)
    network, table = make_network(), make_table(24)
    surrogate = SurrogateSettings(name="same", words="the model", why="to see", make=lambda model: model)

    def planned(attack, model=network, proxy=None):
        plan = plan_crafting(
            model,
            table,
            make_attack(attack, THREAT),
            crafted_on="x",
            column=None,
            seed=0,
            proxy=proxy,
            batch_size=None,
            home=None,
        )
        return len(plan.spans), plan.at_once

    assert planned("autoattack") == (2, 3)
    assert planned("autoattack", proxy=ProxySettings()) == (2, 3)
    assert planned("pgd-3") == (8, None)
    assert planned("autoattack", proxy=surrogate) == (8, None)
    mates = make_network()
    mates.own_batch_size = 4
    assert planned("autoattack", mates) == (6, None)


def test_batches_are_taken_together_only_where_many_are_left_and_their_images_are_small():
    small, large = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)
    assert batches.batches_together(1000, 250, small) == 1
    assert batches.batches_together(50_000, 250, small) == 10
    assert batches.batches_together(50_000, 8, large) == 13


class ReadsAFile(nn.Module):
    """A model whose numbers nobody can tell: each pass reads them from a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def forward(self, images):
        channel, offset = self.path.read_text().split()
        margin = 20 * (images.mean((2, 3))[:, int(channel)] - float(offset))
        return torch.stack([margin, -margin], 1)


def test_a_folder_of_a_model_that_cannot_be_read_belongs_to_its_answers(tmp_path):
    file = tmp_path / "numbers"
    table = Table.from_tensors(torch.full((6, 3, 4, 4), 0.55), [0] * 6)

    def evaluated(numbers, folder):
        file.write_text(numbers)
        return evaluate(ReadsAFile(file), table, "pgd-5", settings=settings, folder=folder).rows

    settings = EvaluationSettings(threat="linf:0.01", reliability=False)
    with pytest.warns(UnfoolWarning, match="named unverified"):
        first = evaluated("0 0.5", tmp_path / "kept")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        assert [row.accuracy for row in first] == [1.0, 1.0]
        assert [row.protocol for row in first] == ["clean", "unverified"]
        assert evaluated("0 0.5", tmp_path / "kept")[1].cost == first[1].cost, "read"
        with pytest.raises(OutputError, match="holds another evaluation: answers is"):
            evaluated("1 0.548", tmp_path / "kept")
        assert evaluated("1 0.548", None)[1].accuracy == 0.0
    assert not list((tmp_path / "kept").glob("clean-*"))


class Refused(nn.Module):
    def forward(self, images):
        raise ImagesError("these images are refused")


@pytest.mark.parametrize("before", [False, True])
def test_an_attack_that_is_refused_leaves_no_trace_and_blocks_no_other(tmp_path, before):
    folder, attack = tmp_path / "set.state" / "fgsm", make_attack("fgsm", THREAT)
    if before:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    with pytest.raises(ImagesError):
        craft(Refused(), make_table(6), attack, folder=folder, batch_size=3)
    assert [path.name for path in tmp_path.iterdir()] == (["set.state"] if before else [])
    # A process that was killed in its first batch leaves a description alone.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "crafting.json").write_text('{"batch_size": 2, "seed": 5}')
    other = craft(make_network(), make_table(5), attack, folder=folder, batch_size=3)
    assert torch.equal(other.images, craft(make_network(), make_table(5), attack, batch_size=3).images)
    with pytest.raises(OutputError, match="holds another evaluation: "):
        craft(make_network(), make_table(6), attack, folder=folder, batch_size=3)
    assert {path.name for path in folder.iterdir()} >= {"batch-00000.safetensors", "batch-00001.safetensors"}


def test_what_an_evaluation_stored_is_removed_at_once_and_what_is_not_its_own_stays(tmp_path, monkeypatch):
    def stored(*names):
        for name in names:
            (tmp_path / "state" / name).mkdir(parents=True, exist_ok=True)

    def killed(path, **settings):
        raise KeyboardInterrupt

    own = ("fgsm_linf_2_255", "pgd-3_linf_2_255")
    stored(*own)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            discard(tmp_path / "state", ["fgsm", "pgd-3"], THREAT)
    assert not (tmp_path / "state").exists()
    stored(*own, "mine")
    discard(tmp_path / "state", ["fgsm", "pgd-3"], THREAT)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["mine"]


def test_two_processes_make_the_very_set_that_one_makes(tmp_path):
    whole = two_crafters.crafted()
    for code, _, complaint in run_calls([(two_crafters.run, (rank, str(tmp_path))) for rank in (0, 1)]):
        assert code == 0, complaint
    for name in ("plain", "resumable"):
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            for field, value in whole.__dict__.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(found[field], value), field
                elif field != "cpu_seconds":
                    assert found[field] == value, field
    assert 0 < int((whole.fooled_by_part >= 0).sum()) < len(whole)


def test_records_say_which_part_fooled_how_many(tmp_path):
    network, table = make_network(), make_table(24)
    examples = craft(network, table, make_attack("autoattack:steps=5,queries=20", "linf:8/255"))
    found = classify(network, examples)
    assert found.fooled_by == examples.successes_per_part
    assert list(found.fooled_by) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    clean = classify(network, table)
    assert sum(found.fooled_by.values()) == sum(clean.correct) - sum(found.correct)
    assert found.labels == table.labels(None).tolist()


class Wide(nn.Module):
    """Keeps so many numbers per image for the gradient."""

    def __init__(self, size):
        super().__init__()
        self.first = nn.Linear(12, size)
        self.last = nn.Linear(size, 2)

    def forward(self, images):
        return self.last(torch.tanh(self.first(images.flatten(1))))


def test_a_batch_is_as_large_as_memory_allows(monkeypatch):
    image = torch.zeros(1, 3, 2, 2)
    monkeypatch.setattr(batches, "_free", lambda device: 100 * 2**20)
    assert fitting(Wide(8), image) == batches.BATCH_SIZE
    large = fitting(Wide(2**16), image)
    # Twice what one image keeps (tanh's output, at least once) fits into half of the free memory.
    assert 8 <= large <= 100 * 2**20 / 2 / (2 * 2**16 * 4)
    assert fitting(Wide(2**15), image) >= 1.5 * large
    model = Wide(4).train()
    fitting(model, image)
    assert model.training
    assert model.first.weight.grad is None


def test_spans_cover_all_images_once():
    assert [list(range(10)[span]) for span in spans(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
