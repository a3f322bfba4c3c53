"""What a Ray cluster costs beside processes of one machine: a study of small pieces, on the same cores.

    python benchmarks/ray_overhead.py [--networks 12] [--repeat 1] [--json]

The study trains some small networks and measures each on clean images and under three attacks: five pieces a network,
60 by default, each of about a second or less. It is run by processes of this machine, and by a Ray cluster of one node
with as many cores (in a network of its own, as in tests/cluster), each time by a program that begins from nothing.
Compared are the times from the first piece to the last, start of the workers included, and the CPU time of all
processes, since a busy machine stretches the former. Exit code 1 where the cluster takes more than 1.10 of the local
time.

This file is also the study.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfool.attacks import PGD
from unfool.core.threat import Linf
from unfool.studies import Study
from unfool.studies.framework import Attacked, Clean, Examples, Images, Measurement, NetworkSpec
from unfool.training import RunConfig, StageConfig, TaskConfig

ROOT = Path(__file__).resolve().parents[1]
MOST = 1.10
"""What the cluster's time may be of the local one's."""


class SmallPieces(Study[int]):
    """So many networks, each attacked three times."""

    name, title = "small-pieces", "Many small pieces"
    scales = {str(count): count for count in (2, 8, 12, 24, 48)}  # noqa: RUF012 - as every study writes them

    def networks(self, count: int) -> list[NetworkSpec]:
        stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=150, batch_size=16)
        config = lambda seed: RunConfig(data="digits", trunk="convnet:widths=8-16-16", stages=(stage,), seed=seed)  # noqa: E731
        return [NetworkSpec(key={"model": "small", "seed": seed}, config=config(seed)) for seed in range(count)]

    def measurements(self, count: int, networks: Sequence[NetworkSpec]) -> Iterator[Measurement]:
        for network in networks:
            yield Clean(system=network, images=Images(data="digits"))
            for steps in (10, 20, 40):
                attack = PGD(Linf(8 / 255), steps=steps)
                images = Images(data="digits").sample(100)
                yield Attacked(system=network, examples=Examples(network=network, attack=attack, images=images))


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """Times of a study of so many ``pieces``: seconds that passed, and CPU seconds of all processes."""

    pieces: int
    cores: int
    local_seconds: float
    ray_seconds: float
    local_cpu_seconds: float
    ray_cpu_seconds: float

    @property
    def ratio(self) -> float:
        """The cluster's time over the local one's."""
        return self.ray_seconds / self.local_seconds

    def to_json(self) -> dict[str, Any]:
        """The times, their ratios, and what the cluster adds to a piece."""
        return {
            **vars(self),
            "ratio": round(self.ratio, 3),
            "cpu_ratio": round(self.ray_cpu_seconds / self.local_cpu_seconds, 3),
            "milliseconds_per_piece": round(1000 * (self.ray_seconds - self.local_seconds) / self.pieces, 1),
        }


def ray_overhead(networks: int = 12, cores: int = 2, repeat: int = 1) -> Overhead:
    """Run the study both ways in turn, ``repeat`` times, and take the shortest times of each.

    Args:
        networks: How many networks are trained; each makes five pieces. One of the study's scales.
        cores: Local processes, and cores of the cluster's node.
        repeat: How often each is run.
    """
    sys.path.insert(0, str(ROOT / "tests" / "cluster"))
    from three_nodes import ADDRESS, ThreeNodes

    local: list[tuple[float, float]] = []
    ray: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeat):
            local.append(_timed(networks, Path(folder) / f"local-{turn}", f"workers={cores}"))
            nodes = ThreeNodes("a", cores)
            try:
                ray.append(_timed(networks, Path(folder) / f"ray-{turn}", f"cluster={ADDRESS}", nodes))
            finally:
                nodes.close()
    return Overhead(
        pieces=4 * networks + networks,
        cores=cores,
        local_seconds=min(seconds for seconds, _ in local),
        ray_seconds=min(seconds for seconds, _ in ray),
        local_cpu_seconds=min(cpu for _, cpu in local),
        ray_cpu_seconds=min(cpu for _, cpu in ray),
    )


def _timed(networks: int, out: Path, executor: str, nodes: Any = None) -> tuple[float, float]:
    """Seconds and CPU seconds of the study in a program of its own."""
    command = [sys.executable, __file__, "--one", str(networks), str(out), executor]
    start = subprocess.Popen if nodes is None else nodes.popen
    process = start(command, stdout=subprocess.PIPE)
    before, latest = _cpu_seconds(nodes), {}
    while process.poll() is None:
        latest |= _cpu_seconds(nodes)  # workers end with the program, and take their times along
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the study ended with exit code {process.returncode}")
    seconds, own = json.loads(process.stdout.read())
    return seconds, round(own + sum(latest.values()) - sum(before.values()), 2)


def _run_study(networks: str, out: str, executor: str) -> None:
    """In a program of its own: run the study, and print its seconds and CPU seconds."""
    from rich.console import Console

    from unfool.core.parallel.executor import executor_for
    from unfool.studies import run_study

    kind, _, value = executor.partition("=")
    started = time.monotonic()
    chosen = executor_for(value if kind == "cluster" else None, workers=int(value) if kind == "workers" else None)
    run_study(__file__, networks, out, executor=chosen, console=Console(quiet=True))
    seconds, times = time.monotonic() - started, os.times()
    print(json.dumps([round(seconds, 2), round(sum(times[:4]), 2)]))


def _cpu_seconds(nodes: Any) -> dict[int, float]:
    """CPU time of each process of a cluster."""
    seconds: dict[int, float] = {}
    for number in nodes.processes() if nodes is not None else ():
        with suppress(OSError):
            ticks = map(int, Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
            seconds[number] = sum(ticks) / os.sysconf("SC_CLK_TCK")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _run_study(*arguments.one)
        return 0
    overhead = ray_overhead(arguments.networks, repeat=arguments.repeat)
    if arguments.json:
        print(json.dumps(overhead.to_json(), indent=1))
    else:
        print("\n".join(f"{key}: {value}" for key, value in overhead.to_json().items()))
    return int(overhead.ratio > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
