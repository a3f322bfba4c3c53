"""A study of many networks and attacks on a cluster, simulated from measured pieces: where time goes, what limits it.

    python benchmarks/cluster_simulation.py --measure STUDY [STUDY ...] [--scale scale.json]
    python benchmarks/cluster_simulation.py [--networks 50] [--attacks NAME ...] [--nodes 100] [--gpus 8] [--json]

The first writes benchmarks/cluster_pieces.json, from which the second simulates.

``--measure`` reads the folders of finished studies (what each network and attack took, how many images it sent through
which network, how large its files are), and times this machine's own hand-outs and landings; ``--scale`` takes the time
of a piece on a real Ray cluster from ``benchmarks/scale.py --json``. Nothing else is assumed but what is printed: a
piece takes the images that it sends through its network (counted from the attack's steps, restarts and targets) times
the multiply-adds of the network times a measured rate, drawn anew for each piece from those that were measured.

Pieces are handed out in the executor's own order: the one with the longest chain behind it first, two for each worker,
by one asker which hands out or lands one piece at a time. The same is simulated for a hundred times as many nodes, as
it is and with attacks in shards; sentences say what would have to change. Deterministic by ``--seed``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unfool.core.errors import UnfoolError

FILE = Path(__file__).with_name("cluster_pieces.json")
ATTACKS = ("fgsm", "n-fgsm", "pgd-10", "pgd-20", "pgd-50", "pgd-100", "apgd-ce", "apgd-dlr", "lean", "apgd-t")
AHEAD = 2
"""Pieces that are handed out for each worker: one that it works at, one that waits."""
PROBES = 400
"""Pieces with which the asker's own time is measured."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of a study: seconds of a worker, and the bytes that it reads and leaves."""

    name: str
    kind: str
    seconds: float
    needs: tuple[str, ...] = ()
    network: str = ""
    reads: float = 0.0
    leaves: float = 0.0


@dataclass(kw_only=True)
class Outcome:
    """What a simulation gives, in seconds and bytes. Idle seconds of workers are those in which a piece waited for the
    asker, or none could begin because what it needs was not finished."""

    pieces: int
    workers: int
    makespan: float = 0.0
    computed: dict[str, float] = field(default_factory=dict[str, float])
    idle_for_asker: float = 0.0
    idle_for_needs: float = 0.0
    asker_busy: float = 0.0
    longest_chain: float = 0.0
    bytes_put: float = 0.0
    bytes_delivered: float = 0.0
    bytes_landed: float = 0.0
    most_in_store: float = 0.0
    started: list[str] = field(default_factory=list[str])

    @property
    def utilisation(self) -> float:
        """The share of the workers' time in which they compute."""
        return sum(self.computed.values()) / (self.workers * self.makespan) if self.makespan else 0.0


def urgency_of(pieces: Sequence[Piece]) -> dict[str, float]:
    """The seconds of each piece and of the longest chain that waits for it, as the executor's `urgency` has it."""
    following: dict[str, list[str]] = {piece.name: [] for piece in pieces}
    for piece in pieces:
        for need in piece.needs:
            following[need].append(piece.name)
    seconds = {piece.name: piece.seconds for piece in pieces}
    total: dict[str, float] = {}
    for piece in reversed(pieces):  # each comes after its needs
        total[piece.name] = seconds[piece.name] + max((total[name] for name in following[piece.name]), default=0.0)
    return total


class Simulation:
    """One run of pieces, each listed after its needs, on workers of which ``per_node`` share a node."""

    def __init__(
        self, pieces: Sequence[Piece], workers: int, *, per_node: int = 1, handling: float = 0.0, rate: float = math.inf
    ):
        self.pieces = {piece.name: piece for piece in pieces}
        self.urgency = urgency_of(pieces)
        self.outcome = Outcome(pieces=len(pieces), workers=workers)
        self.per_node, self.handling, self.rate = per_node, handling, rate
        self.missing = {piece.name: len(piece.needs) for piece in pieces}
        self.following: dict[str, list[str]] = {piece.name: [] for piece in pieces}
        for piece in pieces:
            for need in piece.needs:
                self.following[need].append(piece.name)
        self.order = {piece.name: number for number, piece in enumerate(pieces)}
        self.ready: list[tuple[float, int, str]] = []
        self.free = list(range(workers))
        self.landings: deque[str] = deque()
        self.queue: deque[str] = deque()
        self.events: list[tuple[float, int, str, str, int]] = []
        self.count = 0
        self.asker_free = True
        self.out = 0
        self.delivered: set[tuple[str, int]] = set()
        self.readers: dict[str, int] = {}

    def run(self) -> Outcome:
        """All of it, until the last piece has landed."""
        outcome, now = self.outcome, 0.0
        outcome.longest_chain = max(self.urgency.values(), default=0.0)
        for name, missing in self.missing.items():
            if not missing:
                self._make_ready(name)
        self._ask(now)
        while self.events:
            then, _, event, name, worker = heapq.heappop(self.events)
            self._idle(then - now)
            now = then
            if event == "sent":
                self.asker_free = True
                self.queue.append(name)
            elif event == "computed":
                heapq.heappush(self.free, worker)
                self.landings.append(name)
            else:
                self.asker_free = True
                self._landed(name)
            while self.queue and self.free:
                self._start(self.queue.popleft(), heapq.heappop(self.free), now)
            self._ask(now)
        outcome.makespan = now
        return outcome

    def _push(self, when: float, event: str, name: str, worker: int = -1) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, event, name, worker))

    def _make_ready(self, name: str) -> None:
        heapq.heappush(self.ready, (-self.urgency[name], self.order[name], name))

    def _ask(self, now: float) -> None:
        """Let the asker take up what it does next: a landing before a hand-out."""
        if not self.asker_free:
            return
        if self.landings:
            name, event = self.landings.popleft(), "landed"
            size = self.pieces[name].leaves
            self.outcome.bytes_landed += size
        elif self.ready and self.out < AHEAD * self.outcome.workers:
            name, event, size = heapq.heappop(self.ready)[2], "sent", 0.0
            self.out += 1
            network = self.pieces[name].network
            if network and self.readers.get(network, 0) == 0:
                size = self.pieces[name].reads
                self.outcome.bytes_put += size
            self.readers[network] = self.readers.get(network, 0) + 1
            held = sum(self._size(network) for network, readers in self.readers.items() if readers and network)
            self.outcome.most_in_store = max(self.outcome.most_in_store, held)
        else:
            return
        taken = self.handling / 2 + size / self.rate
        self.outcome.asker_busy += taken
        self.asker_free = False
        self._push(now + taken, event, name)

    def _size(self, network: str) -> float:
        return self.pieces[network].leaves

    def _start(self, name: str, worker: int, now: float) -> None:
        piece = self.pieces[name]
        self.outcome.started.append(name)
        self.outcome.computed[piece.kind] = self.outcome.computed.get(piece.kind, 0.0) + piece.seconds
        place = (piece.network, worker // self.per_node)
        if piece.network and place not in self.delivered:
            self.delivered.add(place)
            self.outcome.bytes_delivered += piece.reads
        self._push(now + piece.seconds, "computed", name, worker)

    def _landed(self, name: str) -> None:
        self.out -= 1
        self.readers[self.pieces[name].network] -= 1
        for following in self.following[name]:
            self.missing[following] -= 1
            if not self.missing[following]:
                self._make_ready(following)

    def _idle(self, seconds: float) -> None:
        """Say why workers are idle: for as many pieces as could begin, or are handed out or landed, it is the asker."""
        if not self.free or not seconds:
            return
        held = len(self.ready) + len(self.landings) + (0 if self.asker_free else 1)
        for_asker = min(len(self.free), held)
        self.outcome.idle_for_asker += for_asker * seconds
        self.outcome.idle_for_needs += (len(self.free) - for_asker) * seconds


def study_pieces(plan: Plan, measured: Measured, *, shards: int = 1, faster: float = 1.0, seed: int = 0) -> list[Piece]:
    """The pieces of a study: each network is trained, then attacked in ``shards`` parts of its images."""
    draw = np.random.default_rng(seed)

    def seconds(kind: str, images: float) -> float:
        return images * plan.multiply_adds * float(draw.choice(measured.rates[kind])) / faster

    weights = plan.parameters * measured.bytes_per_parameter
    pieces: list[Piece] = []
    for number in range(plan.networks):
        network = f"network {number}"
        pieces.append(Piece(name=network, kind="train", seconds=seconds("train", plan.training_images), leaves=weights))
        for attack, passes in plan.attacks.items():
            for shard in range(shards):
                own = plan.images // shards + (shard < plan.images % shards)
                # One pass more judges what came of it.
                pieces.append(
                    Piece(
                        name=f"{network}, {attack}, {shard}", kind="attack", needs=(network,), network=network,
                        seconds=seconds("attack", own * (passes + 1)), reads=weights,
                        leaves=own * measured.bytes_per_record,
                    )
                )  # fmt: skip
    return pieces


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is simulated: the images that training one network sends through it, and passes by attack."""

    networks: int
    attacks: dict[str, int]
    images: int
    training_images: float
    parameters: int
    multiply_adds: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured: seconds for an image and a multiply-add by kind of piece, one for each that was measured;
    bytes of files; and what the asker takes for a piece and for the bytes that land."""

    rates: dict[str, list[float]]
    bytes_per_parameter: float
    bytes_per_record: float
    handling: float
    landing_rate: float
    order_seconds: dict[str, float]
    studies: list[str]
    cluster: bool


def measure(studies: Sequence[Path], scale: Path | None) -> Measured:
    """Read finished studies, and time this machine's asker."""
    from unfool.core.borders.json_text import read_object
    from unfool.data.catalog import SETS
    from unfool.models.header import read_header
    from unfool.models.weights import load_network
    from unfool.training.config import read_config

    rates: dict[str, list[float]] = {"train": [], "attack": []}
    per_parameter: list[float] = []
    per_record: list[float] = []
    for study in studies:
        adds: dict[Path, float] = {}
        for file in sorted((study / "models").rglob("weights.safetensors")):
            cost, config = read_header(file).metadata, read_config(file.parent / "config.yaml")
            side = config.size or (SETS[config.data].size if config.data in SETS else 0)
            if not side:
                continue  # a folder of images, whose size the run does not say
            network = load_network(file)
            adds[file.parent.relative_to(study / "models")] = multiply_adds(network, side)
            if cost.get("model_images"):
                work = cost["model_images"] * adds[file.parent.relative_to(study / "models")]
                rates["train"].append(cost["cpu_seconds"] / work)
                per_parameter.append(file.stat().st_size / sum(value.numel() for value in network.parameters()))
        for file in sorted((study / "records").rglob("*.json")):
            place = file.parent.relative_to(study / "records")
            values = read_object(file, "give the folder of a finished study")
            if place in adds and values.get("attack") != "none" and values.get("cpu_seconds", 0) > 0.1:
                rates["attack"].append(values["cpu_seconds"] / (values["model_images"] * adds[place]))
                per_record.append(file.stat().st_size / len(values["ids"]))
    if not rates["train"] or not rates["attack"]:
        raise SystemExit("no folder holds networks with attacks on them; give folders of finished studies")
    handling, landing = asker_times()
    if scale is not None:
        handling += float(read_object(scale, "give what scale.py --json printed")["ray_seconds_per_piece"])
    return Measured(
        rates={kind: [float(f"{rate:.4g}") for rate in values] for kind, values in rates.items()},
        bytes_per_parameter=round(statistics.median(per_parameter), 3),
        bytes_per_record=round(statistics.median(per_record), 1),
        handling=round(handling, 6),
        landing_rate=round(landing),
        order_seconds={str(count): round(order_seconds(count), 7) for count in (500, 2000)},
        studies=[study.name for study in studies],
        cluster=scale is not None,
    )


def multiply_adds(network: Any, side: int) -> float:
    """Multiply-adds of one image's forward pass, counted on it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() / 2


def asker_times() -> tuple[float, float]:
    """Seconds of the asker for a piece that leaves a small file, and bytes a second that land, without any network."""
    from rich.console import Console

    from unfool.core.cluster.dispatch import run_on
    from unfool.core.cluster.messages import CHUNK, Chunk, Message
    from unfool.core.parallel.job import Job
    from unfool.core.parallel.schedule import Schedule

    class AtOnce:
        """Workers that are done as soon as they are asked."""

        def __init__(self, size: int):
            self.data = np.zeros(size, np.uint8)
            self.number = 0

        def room(self, job: Job, running: int) -> bool:
            return running < 16

        def put(self, part: object) -> object:
            return part

        def submit(self, job: Job, package: object) -> Hashable:
            self.number += 1
            return self.number

        def events(self, handles: Sequence[Hashable], seconds: float) -> Sequence[tuple[Hashable, Message]]:
            size = len(self.data)
            return [
                (
                    handle,
                    Message(
                        chunks=(Chunk(path=f"{handle}.json", offset=0, size=size, data=self.data),),
                        commit=True,
                        done=True,
                    ),
                )
                for handle in handles
            ]

        def cancel(self, handles: Sequence[Hashable]) -> None:
            pass

    def timed(count: int, size: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            jobs = [Job(name=str(number), call=print) for number in range(count)]
            began = time.perf_counter()
            run_on(AtOnce(size), Schedule(jobs), Path(folder), Console(quiet=True), device="cpu", files={})
            return time.perf_counter() - began

    timed(20, 1000)
    small, large = timed(PROBES, 24_000), timed(16, CHUNK)
    return small / PROBES, 16 * CHUNK / large


def order_seconds(count: int) -> float:
    """Seconds that choosing the next of so many pieces takes."""
    from unfool.core.parallel.job import Job
    from unfool.core.parallel.schedule import Schedule

    schedule = Schedule([Job(name=str(number), call=print, cost=float(number % 97)) for number in range(count)])
    began = time.perf_counter()
    for _ in range(50):
        job = schedule.begin()
        assert job is not None
        schedule.done(job.name)
    return (time.perf_counter() - began) / 50


def plan_of(options: argparse.Namespace) -> Plan:
    """The study that the options describe, with its images counted."""
    from unfool.attacks import make_attack
    from unfool.attacks.ensemble import attack_passes
    from unfool.models.network import Network
    from unfool.models.trunks import TrunkSpec

    threat = "linf:8/255"
    crafted = attack_passes(make_attack(options.perturb, threat).parts)
    head = {"labels": {"kind": "linear", "outputs": 10}}
    network = Network.build(TrunkSpec.from_text(options.trunk), head, classifier="labels")
    parameters, adds = sum(value.numel() for value in network.parameters()), multiply_adds(network, options.side)
    return Plan(
        networks=options.networks,
        attacks={name: attack_passes(make_attack(name, threat).parts) for name in options.attacks},
        images=options.images,
        training_images=options.epochs * options.training_images * (1 + crafted),
        parameters=parameters,
        multiply_adds=adds,
        words=f"{options.networks} networks ({options.trunk}, {options.side} px, {parameters:,} parameters, "
        f"{adds / 1e6:,.0f} M multiply-adds an image), each trained on {options.training_images:,} images for "
        f"{options.epochs} epochs with {options.perturb}, and attacked on {options.images:,} images by "
        f"{', '.join(options.attacks)}",
    )


def simulated(plan: Plan, measured: Measured, options: argparse.Namespace, nodes: int, shards: int) -> Outcome:
    """One cluster at work on the study, its attacks in so many shards."""
    pieces = study_pieces(plan, measured, shards=shards, faster=options.faster, seed=options.seed)
    workers = nodes * options.gpus
    return Simulation(
        pieces, workers, per_node=options.gpus, handling=measured.handling, rate=measured.landing_rate
    ).run()


def in_words(outcome: Outcome) -> list[str]:
    """Where the time goes."""
    whole = outcome.workers * outcome.makespan
    share = lambda seconds: f"{seconds / whole:.1%}"  # noqa: E731
    computed = ", ".join(f"{kind} {share(seconds)}" for kind, seconds in outcome.computed.items())
    return [
        f"  {outcome.pieces:,} pieces on {outcome.workers:,} GPUs: {duration(outcome.makespan)}, of which the longest "
        f"chain takes {duration(outcome.longest_chain)}",
        f"  the GPUs' time: {computed}; idle {share(outcome.idle_for_needs)} since what is needed is not finished, "
        f"{share(outcome.idle_for_asker)} waiting for the asker",
        f"  the asker: busy {outcome.asker_busy / outcome.makespan:.1%} of the time; "
        f"{outcome.bytes_landed / 2**20:,.0f} MiB land with it",
        f"  the object store: {outcome.bytes_put / 2**20:,.0f} MiB put, {outcome.bytes_delivered / 2**30:,.1f} GiB "
        f"delivered to nodes, at most {outcome.most_in_store / 2**20:,.0f} MiB at a time",
    ]


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    for size, unit in ((86400 * 365, "years"), (86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def assumptions(measured: Measured, options: argparse.Namespace) -> list[str]:
    """All that the simulation takes for granted."""
    lines: list[str] = []
    for kind, values in measured.rates.items():
        rates = [1e12 * rate for rate in values]
        lines.append(
            f"  {kind}: {statistics.median(rates):,.1f} s for 10^12 multiply-adds ({min(rates):,.1f} to "
            f"{max(rates):,.1f}; {len(rates)} measured in {', '.join(measured.studies)}); a GPU is {options.faster:g} "
            "times as fast"
        )
    where = "on a Ray cluster" if measured.cluster else "without a network"
    return [
        *lines,
        "  a worker's seconds grow with images and multiply-adds alone; nothing fails; the network is as "
        "fast as the asker",
        f"  weights have {measured.bytes_per_parameter:g} bytes a parameter, records {measured.bytes_per_record:g} "
        "bytes an image",
        f"  the asker takes {1000 * measured.handling:.2f} ms a piece ({where}), and "
        f"{measured.landing_rate / 2**20:,.0f} MiB a second",
    ]


def conclusions(
    plan: Plan, measured: Measured, options: argparse.Namespace, whole: Outcome, parts: Outcome
) -> list[str]:
    """What would have to change for ``whole.workers`` GPUs, from the numbers."""
    pieces = len(plan.attacks) * plan.networks
    compute = sum(parts.computed.values())
    train = parts.computed["train"] / plan.networks
    attack = max(plan.attacks.values()) / sum(plan.attacks.values()) * parts.computed["attack"] / plan.networks
    best = compute / parts.workers
    rate, able = parts.pieces / max(best, 1e-9), 1 / measured.handling
    limit = best / (parts.pieces * measured.handling)
    order = [float(seconds) for seconds in measured.order_seconds.values()]
    counts = [int(count) for count in measured.order_seconds]
    slope = (order[-1] - order[0]) / (counts[-1] - counts[0])
    choosing = slope * parts.pieces / 2 * parts.pieces
    nodes, gpus = whole.workers // options.gpus, f"{whole.workers:,} GPUs"
    in_shards, landing = parts.pieces - plan.networks, measured.landing_rate
    size = max(1, plan.images * pieces // in_shards)
    asker = (
        f"It is no limit until GPUs are {limit * options.faster:,.1f} times as fast as the measured worker."
        if limit > 1
        else "It is the limit: groups of nodes need askers of their own, which hand out and land for it."
    )
    slow = choosing > 0.01 * parts.makespan
    heap = "; a heap would take n to its logarithm" if slow else ", little beside the work"
    return [
        f"chain: a network's training ({duration(train)}) and longest attack ({duration(attack)}) bound "
        f"the time of any cluster; {gpus} gain nothing over {pieces:,}. To keep all busy ({duration(best)} at best), "
        f"training one network would have to use {max(1.0, train / best):,.0f} GPUs at a perfect speed-up.",
        f"shards: {pieces:,} attacks occupy at most {pieces:,} GPUs; in {in_shards:,} shards of about {size:,} images "
        f"they occupy all, and the time falls from {duration(whole.makespan)} to {duration(parts.makespan)}, most of "
        "which is training.",
        f"hand-outs: {parts.pieces:,} pieces in the best time are {rate:,.3g} a second; one asker manages {able:,.0f} "
        f"({1000 * measured.handling:.1f} ms a piece). {asker}",
        f"order: to choose the next of n pieces takes {1e9 * slope:,.0f} ns times n here, {duration(choosing)} for "
        f"{parts.pieces:,} pieces together{heap}.",
        f"object store: {parts.bytes_delivered / 2**30:,.0f} GiB of weights go to {nodes:,} nodes; sent by the "
        f"asker alone, at the {landing / 2**20:,.0f} MiB a second that it lands, that is "
        f"{duration(parts.bytes_delivered / landing)}: nodes must hand them on, as the object store does.",
    ]


def at_least_one(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give 1 or more")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give a number above 0")
    return number


def main() -> int:
    """Measure, or simulate and print; an input that cannot be is told in a line."""
    try:
        return simulation()
    except (UnfoolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def simulation() -> int:
    """Measure, or simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", type=Path, metavar="STUDY", help="folders of finished studies")
    parser.add_argument("--scale", type=Path, help="what benchmarks/scale.py --json printed, for --measure")
    parser.add_argument("--pieces", type=Path, default=FILE, help="where measurements are written and read")
    parser.add_argument("--networks", type=at_least_one, default=50)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--nodes", type=at_least_one, default=100)
    parser.add_argument("--gpus", type=at_least_one, default=8, help="GPUs of a node; each works at one piece")
    parser.add_argument("--trunk", default="resnet18")
    parser.add_argument("--side", type=at_least_one, default=32, help="pixels a side")
    parser.add_argument("--images", type=at_least_one, default=10_000, help="attacked images")
    parser.add_argument("--training-images", type=at_least_one, default=50_000)
    parser.add_argument("--epochs", type=at_least_one, default=30)
    parser.add_argument("--perturb", default="pgd-10", help="attack of the training")
    parser.add_argument(
        "--faster", type=above_zero, default=1.0, help="how many times as fast a GPU is as the measured worker"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.measure:
        measured = measure(options.measure, options.scale)
        options.pieces.write_text(json.dumps(asdict(measured)) + "\n", encoding="utf-8")
        print(f"{options.pieces}: {', '.join(f'{len(rates)} of {kind}' for kind, rates in measured.rates.items())}")
        return 0
    measured = Measured(**json.loads(options.pieces.read_text(encoding="utf-8")))
    plan = plan_of(options)
    many = 100 * options.nodes
    shards = max(1, math.ceil(many * options.gpus / (plan.networks * len(plan.attacks))))
    runs = {
        f"{options.nodes:,} nodes": simulated(plan, measured, options, options.nodes, 1),
        f"{many:,} nodes": simulated(plan, measured, options, many, 1),
        f"{many:,} nodes, {shards} shards an attack": simulated(plan, measured, options, many, shards),
    }
    whole, parts = list(runs.values())[1:]
    said = conclusions(plan, measured, options, whole, parts)
    if options.json:
        shown = {
            name: {**asdict(run), "utilisation": run.utilisation, "started": len(run.started)}
            for name, run in runs.items()
        }
        print(json.dumps({"runs": shown, "conclusions": said}))
        return 0
    print("\n".join([f"study: {plan.words}", "assumptions:", *assumptions(measured, options)]))
    for name, outcome in runs.items():
        print(name)
        print("\n".join(in_words(outcome)))
    print(f"for {many:,} nodes:")
    print("\n".join(f"  {text}" for text in said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
