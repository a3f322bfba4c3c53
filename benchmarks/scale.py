"""What several processes and a Ray cluster gain and cost, against one process of this machine.

    python benchmarks/scale.py [--json] [--rounds 2] [--only evaluation study ray memory] [--images N] [--steps N]

Each comparison is run in the order A B A B, every run in a process of its own whose imports do not count; the figures
are medians over the rounds. A bound that is missed ends it with exit code 1.

* ``evaluation_speedup``: an attack on drawn images, two processes over one (at least 1.8 on two quiet cores); beside it
  ``evaluation_attainable``, what two evaluations of half the images at once gain that know nothing of each other: what
  this machine's cores allow;
* ``study_speedup``: a study of 48 small pieces, two processes over one (at least 1.8);
* ``ray_over_local``: the same study on a Ray cluster of two cores over two processes (at most 1.10), and
  ``ray_seconds_per_piece``: what the cluster takes for a piece that does nothing;
* ``peak_gib``: of an evaluation of 20,000 images at 224 px, as ``scale_memory.py`` measures it (at most 2 GiB).

``quiet`` says whether this machine did nothing else: whether two processes that only count get two cores' time. The
cluster is one node in a network of its own, with the loopback interface alone; ``ray`` is left out, with a line that
says why, where that is not allowed or the package is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

STUDY = Path(__file__).with_name("scale_study.py")
PARTS = ("evaluation", "study", "ray", "memory")
BOUNDS = {"evaluation_speedup": 1.8, "study_speedup": 1.8, "ray_over_local": 1.10, "peak_gib": 2.0}
AT_LEAST = {"evaluation_speedup", "study_speedup"}
ATTACK = "pgd-50:restarts=16"
"""Of the evaluation: minutes of work, because workers need seconds to start."""
NOTHING = 200
"""Pieces that do nothing."""
PORT = 6391
_START = (
    "import socket,fcntl,struct,os,sys;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);"
    "fcntl.ioctl(s,0x8914,struct.pack('16sH14s',b'lo',0x49,b''));"  # SIOCSIFFLAGS: up, loopback, running
    "os.execv(sys.executable,[sys.executable,*sys.argv[1:]])"
)


def evaluation(workers: int, images: int) -> dict[str, float]:
    """Evaluate drawn images under one attack, and say how long it took."""
    from rich.console import Console
    from scale_memory import OpensDrawn

    from unfool import EvaluationSettings, Linf, evaluate
    from unfool.core.parallel.job import Place
    from unfool.core.parallel.local import LocalExecutor
    from unfool.evaluation.parts.sharing import Sharing, share_evaluation

    opens = OpensDrawn(images, 32, ATTACK)
    opened = opens(Place(folder=Path()))
    with tempfile.TemporaryDirectory() as temporary:
        began, folder = time.monotonic(), Path(temporary)
        if workers > 1:
            sharing = Sharing(executor=LocalExecutor(workers), folder=folder, console=Console(quiet=True))
            share_evaluation(sharing, opens, opened)
        settings = EvaluationSettings(threat=Linf(1 / 255), reliability=False)
        evaluate(opened.model, opened.table, ATTACK, settings=settings, folder=folder)
        return {"seconds": time.monotonic() - began}


def study(workers: int, steps: int) -> dict[str, float]:
    """Run the study in processes of this machine."""
    from rich.console import Console

    from unfool.studies import run_study

    os.environ["SCALE_STEPS"] = str(steps)
    with tempfile.TemporaryDirectory() as temporary:
        began = time.monotonic()
        run_study(str(STUDY), "small", Path(temporary) / "out", workers=workers, console=Console(quiet=True))
        return {"seconds": time.monotonic() - began}


def on_ray(steps: int) -> dict[str, float]:
    """Start a node here, run the study on it, and then pieces that do nothing."""
    from rich.console import Console

    from unfool.core.parallel.executor import executor_for
    from unfool.core.parallel.job import Job
    from unfool.studies import run_study

    os.environ["SCALE_STEPS"] = str(steps)
    ray = str(Path(sys.executable).with_name("ray"))
    console = Console(quiet=True)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        options = [f"--port={PORT}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=0"]
        options += ["--include-dashboard=false", "--object-store-memory=80000000", f"--temp-dir={temporary}/ray"]
        subprocess.run(
            [ray, "start", "--head", *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            executor = executor_for(f"127.0.0.1:{PORT}", device="cpu")
            began = time.monotonic()
            run_study(str(STUDY), "small", Path(temporary) / "out", executor=executor, console=console)
            seconds = time.monotonic() - began
            began = time.monotonic()
            jobs = [Job(name=f"nothing {number}", call=str) for number in range(NOTHING)]
            (Path(temporary) / "nothing").mkdir()
            executor.run(jobs, Path(temporary) / "nothing", console)
            return {"seconds": seconds, "each": (time.monotonic() - began) / NOTHING}
        finally:
            import ray as engine

            engine.shutdown()
            subprocess.run([ray, "stop", "--force"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def inside(part: str, *words: object, network: bool = False) -> dict[str, float]:
    """Run one measurement in a process of its own; with ``network`` in a network of its own."""
    command = [sys.executable, __file__, "--inside", part, *map(str, words)]
    if network:
        options = ["-n"] if os.getuid() == 0 else ["-rn"]
        command = ["unshare", *options, sys.executable, "-c", _START, *command[1:]]
    folder = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), folder)))
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return json.loads(done.stdout.splitlines()[-1])


def two_at_once(part: str, *words: object) -> dict[str, float]:
    """Run one measurement twice at the same time; how long the slower of them took."""
    with ThreadPoolExecutor(2) as pool:
        return max(pool.map(lambda _: inside(part, *words), range(2)), key=lambda values: values["seconds"])


def no_cluster() -> str:
    """Why no cluster can be started here; empty where one can."""
    if importlib.util.find_spec("ray") is None:
        return "the package ray is not installed (extra cluster)"
    if not shutil.which("unshare"):
        return "there is no program unshare"
    refused = subprocess.run(
        ["unshare", *(["-n"] if os.getuid() == 0 else ["-rn"]), "true"], capture_output=True, text=True
    )
    return f"this machine allows no network of one's own ({refused.stderr.strip()})" if refused.returncode else ""


def count(seconds: float) -> float:
    """The share of a core that this process gets."""
    began, own = time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        pass
    return (time.process_time() - own) / (time.monotonic() - began)


def is_quiet() -> bool:
    """Whether two processes get a core each, but for a twentieth."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return min(pool.map(count, [1.0, 1.0])) > 0.95


def interleaved(rounds: int, *runs: Callable[[], dict[str, float]]) -> list[list[dict[str, float]]]:
    """Every run once a round, one after the other."""
    results: list[list[dict[str, float]]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, values in zip(runs, results, strict=True):
            values.append(run())
    return results


def median(results: list[dict[str, float]], key: str = "seconds") -> float:
    """The median of one figure."""
    return statistics.median(each[key] for each in results)


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """All figures that were asked for, and remarks."""
    figures: dict[str, Any] = {"quiet": is_quiet(), "rounds": options.rounds}
    remarks = [] if figures["quiet"] else ["this machine is not quiet: the speed-ups are those of what was left of it"]
    if "evaluation" in options.only:
        alone, two, halves = interleaved(
            options.rounds,
            *(lambda n=n: inside("evaluation", n, options.images) for n in (1, 2)),
            lambda: two_at_once("evaluation", 1, options.images // 2),
        )
        figures["evaluation_seconds"] = [round(median(values), 2) for values in (alone, two, halves)]
        figures["evaluation_speedup"] = round(median(alone) / median(two), 3)
        figures["evaluation_attainable"] = round(median(alone) / median(halves), 3)
    reason = no_cluster() if "ray" in options.only else "left out"
    if reason not in ("", "left out"):
        remarks.append(f"no cluster: {reason}")
    kinds: dict[str, Callable[[], dict[str, float]]] = {}
    if "study" in options.only:
        kinds["one process"] = lambda: inside("study", 1, options.steps)
    if "study" in options.only or not reason:
        kinds["two processes"] = lambda: inside("study", 2, options.steps)
    if not reason:
        kinds["ray"] = lambda: inside("ray", options.steps, network=True)
    if kinds:
        results = dict(zip(kinds, interleaved(options.rounds, *kinds.values()), strict=True))
        figures["study_seconds"] = {kind: round(median(values), 2) for kind, values in results.items()}
        if "one process" in results:
            figures["study_speedup"] = round(median(results["one process"]) / median(results["two processes"]), 3)
        if "ray" in results:
            figures["ray_over_local"] = round(median(results["ray"]) / median(results["two processes"]), 3)
            figures["ray_seconds_per_piece"] = round(median(results["ray"], "each"), 5)
    if "memory" in options.only:
        command = [sys.executable, str(Path(__file__).with_name("scale_memory.py")), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        figures["memory"] = json.loads(done.stdout)
        figures["peak_gib"] = figures["memory"]["peak_gib"]
    return figures, remarks


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=24_000, help="attacked images of the evaluation")
    parser.add_argument("--steps", type=int, default=500, help="training steps of each network of the study")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        part, *words = options.inside
        run: dict[str, Callable[..., dict[str, float]]] = {"evaluation": evaluation, "study": study, "ray": on_ray}
        print(json.dumps(run[part](*map(int, words))))
        return 0
    figures, remarks = measured(options)
    missed = [
        name
        for name, bound in BOUNDS.items()
        if name in figures and (figures[name] < bound if name in AT_LEAST else figures[name] > bound)
    ]
    if options.json:
        print(json.dumps({**figures, "bounds": BOUNDS, "missed": missed, "remarks": remarks}))
        return 1 if missed else 0
    for name, value in figures.items():
        bound = f"  ({'at least' if name in AT_LEAST else 'at most'} {BOUNDS[name]:g})" if name in BOUNDS else ""
        print(f"{name:22} {value}{bound}{'  MISSED' if name in missed else ''}")
    print("\n".join(remarks))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
