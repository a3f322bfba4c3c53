"""The simulation of a cluster: small graphs whose times are known, in the executor's own order."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from unfool.core.parallel.job import Job
from unfool.core.parallel.schedule import Schedule, urgency

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "cluster_simulation.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("cluster_simulation", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def chain(simulation, networks=2, attacks=(3.0, 1.0), train=4.0, **more):
    """Networks of so many seconds with attacks on them, of a mebibyte of weights each."""
    Piece = simulation.Piece
    pieces = []
    for number in range(networks):
        name = f"n{number}"
        pieces.append(Piece(name=name, kind="train", seconds=train, leaves=2**20))
        for place, seconds in enumerate(attacks):
            own = {"kind": "attack", "seconds": seconds, "needs": (name,), "network": name, "reads": 2**20}
            pieces.append(Piece(name=f"{name} a{place}", leaves=1000, **own, **more))
    return pieces


def test_the_times_of_known_graphs(simulation):
    alone = simulation.Simulation(chain(simulation), 1).run()
    assert (alone.makespan, alone.utilisation) == (16.0, 1.0)
    assert alone.longest_chain == 7.0
    two = simulation.Simulation(chain(simulation), 2).run()
    assert (two.makespan, two.utilisation) == (8.0, 1.0)
    many = simulation.Simulation(chain(simulation), 10).run()
    assert many.makespan == 7.0
    assert many.computed == {"train": 8.0, "attack": 8.0}
    assert many.idle_for_needs == pytest.approx(10 * 7 - 16)
    assert many.idle_for_asker == 0
    assert many.bytes_put == many.bytes_delivered / 2 == many.most_in_store == 2 * 2**20  # on a node for each worker
    together = simulation.Simulation(chain(simulation), 10, per_node=10).run()
    assert together.bytes_delivered == 2 * 2**20


def test_the_asker_takes_its_time_for_each_piece_and_each_byte(simulation):
    """One worker: 1 s to hand a piece out and to land it, half each; two are handed out at once."""
    pieces = chain(simulation, networks=1, attacks=(), train=4.0)
    assert simulation.Simulation(pieces, 1, handling=1.0).run().makespan == 5.0
    assert simulation.Simulation(pieces, 1, handling=1.0, rate=2**20).run().makespan == 6.0
    free = [simulation.Piece(name=str(number), kind="attack", seconds=0.25) for number in range(8)]
    slow = simulation.Simulation(free, 8, handling=1.0).run()
    assert slow.makespan == pytest.approx(8.0 + 0.25, abs=0.3)
    assert slow.asker_busy == pytest.approx(8.0)
    assert slow.idle_for_asker + slow.idle_for_needs == pytest.approx(8 * slow.makespan - 2.0)


def test_pieces_begin_in_the_executors_order(simulation):
    draw = random.Random(0)
    pieces = []
    for number in range(30):
        needs = tuple({pieces[draw.randrange(number)].name for _ in range(2)}) if number > 4 else ()
        pieces.append(simulation.Piece(name=str(number), kind="any", seconds=float(draw.randrange(1, 9)), needs=needs))
    jobs = [Job(name=each.name, call=print, needs=frozenset(each.needs), cost=each.seconds) for each in pieces]
    assert simulation.urgency_of(pieces) == urgency(jobs)
    simulation.AHEAD, kept = 1, simulation.AHEAD
    started = simulation.Simulation(pieces, 1).run().started
    simulation.AHEAD = kept
    schedule, order = Schedule(jobs), []
    while (job := schedule.begin()) is not None:
        order.append(job.name)
        schedule.done(job.name)
    totals = urgency(jobs)
    assert [totals[name] for name in started] == [totals[name] for name in order]


def test_a_study_is_scaled_by_what_was_counted_and_draws_by_its_seed(simulation):
    measured = simulation.Measured(
        rates={"train": [1e-9], "attack": [2e-9, 3e-9]}, bytes_per_parameter=4.0, bytes_per_record=50.0, handling=0.0,
        landing_rate=1e9, order_seconds={"500": 1e-4, "2000": 4e-4}, studies=["s"], cluster=False,
    )  # fmt: skip
    plan = simulation.Plan(
        networks=3, attacks={"fgsm": 1, "pgd-9": 9}, images=100, training_images=5000.0, parameters=1000,
        multiply_adds=1e6, words="",
    )  # fmt: skip
    pieces = simulation.study_pieces(plan, measured, shards=3, faster=2.0)
    assert len(pieces) == 3 * (1 + 2 * 3)
    assert pieces[0].seconds == pytest.approx(5000 * 1e6 * 1e-9 / 2)
    own = [piece for piece in pieces if piece.name.startswith("network 0, pgd-9")]
    assert [piece.leaves / 50 for piece in own] == [34, 33, 33]
    assert all(
        piece.seconds in (pytest.approx(n * 10 * 1e-3), pytest.approx(n * 15 * 1e-3))
        for piece, n in zip(own, (34, 33, 33), strict=True)
    )
    assert all(piece.reads == 4000 for piece in own)
    again = simulation.study_pieces(plan, measured, shards=3, faster=2.0)
    other = simulation.study_pieces(plan, measured, shards=3, faster=2.0, seed=1)
    assert pieces == again != other
    runs = [simulation.Simulation(pieces, 4, handling=0.01, rate=1e6).run() for _ in range(2)]
    assert runs[0] == runs[1]
