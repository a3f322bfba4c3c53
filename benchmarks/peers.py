"""The same attacks by unfool, pyautoattack, foolbox and ART on the same network and images: strength and cost.

    python benchmarks/peers.py [--json] [--data-dir DIR]

256 images in four chunks of 64, interleaved in one process on one thread, on the adversarially trained small network of
``benchmarks/autoattack.py``. For each attack and tool: ``robust_accuracy`` (of the images a tool returns, judged by the
network itself), ``time_ratio``, its CPU time over that of unfool in fp32, median over chunks, and ``passes_forward``
and ``passes_backward``, images through the network for each image that is attacked. Every tool runs the same number of
steps or queries with its own defaults otherwise; a tool that lacks an attack is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import foolbox
import numpy as np
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch, SquareAttack
from art.estimators.classification import PyTorchClassifier
from autoattack import BATCH, BUDGETS, CIFAR_IMAGES, EPOCHS, THEIRS, TRUNK
from networks import material, trained
from passes import Passes, counted
from pyautoattack.autopgd_base import APGDAttack
from pyautoattack.square import SquareAttack as PublishedSquare
from torch import Tensor

from unfool.attacks import ProxySettings, make_attack
from unfool.core.threat import ThreatModel
from unfool.models.network import Network

PGD_STEPS, APGD_STEPS, QUERIES = 20, 50, 500
CHUNK, CHUNKS = BATCH, 4
Tool = Callable[[Tensor, Tensor], Tensor]
"""Images and labels → adversarial images."""


def ours(network: Network, text: str, threat: ThreatModel) -> dict[str, Tool]:
    """unfool with an fp32 and with a bf16 proxy."""
    attack = make_attack(text, threat)

    def tool(dtype: str) -> Tool:
        proxy = ProxySettings(dtype=dtype)
        proxy_model = proxy.copy(network)
        return lambda images, labels: attack(network, images, labels, proxy_model=proxy_model, proxy=proxy).images

    return {"unfool": tool("fp32"), "unfool bf16": tool("bf16")}


def by_art(estimator: PyTorchClassifier, make: Callable[[PyTorchClassifier], Any]) -> Tool:
    """An attack of ART, which takes and gives arrays."""
    attack = make(estimator)
    return lambda images, labels: torch.from_numpy(attack.generate(images.numpy(), np.eye(10)[labels.numpy()]))


def contestants(network: Network, budgets: dict[str, str]) -> dict[str, dict[str, Tool]]:
    """Every attack, and the tools that have it."""
    linf, l2 = ThreatModel.parse(budgets["linf"]), ThreatModel.parse(budgets["l2"])
    foreign = foolbox.models.pytorch.PyTorchModel(network, bounds=(0.0, 1.0), device="cpu")
    estimator = PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0.0, 1.0), device_type="cpu"
    )
    found: dict[str, dict[str, Tool]] = {}
    for threat, theirs in ((linf, foolbox.attacks.LinfPGD), (l2, foolbox.attacks.L2PGD)):
        norm = np.inf if threat.norm_name == "linf" else 2
        pgd = theirs(rel_stepsize=0.25, steps=PGD_STEPS)
        found[f"pgd-{PGD_STEPS} {threat}"] = {
            **ours(network, f"pgd-{PGD_STEPS}", threat),
            "foolbox": lambda images, labels, pgd=pgd, eps=threat.eps: pgd(foreign, images, labels, epsilons=eps)[1],
            "ART": by_art(
                estimator,
                lambda it, threat=threat, norm=norm: ProjectedGradientDescentPyTorch(
                    it,
                    norm=norm,
                    eps=threat.eps,
                    eps_step=threat.eps / 4,
                    max_iter=PGD_STEPS,
                    num_random_init=1,
                    batch_size=CHUNK,
                    verbose=False,
                ),
            ),
        }
    apgd = APGDAttack(network, norm=THEIRS["linf"], eps=linf.eps, n_iter=APGD_STEPS, seed=0, device="cpu")
    found[f"apgd-ce-{APGD_STEPS} {linf}"] = {
        **ours(network, f"apgd-ce-{APGD_STEPS}", linf),
        "pyautoattack": apgd.perturb,
        "ART": by_art(
            estimator,
            lambda it: AutoProjectedGradientDescent(
                it,
                norm=np.inf,
                eps=linf.eps,
                eps_step=2 * linf.eps,
                max_iter=APGD_STEPS,
                nb_random_init=1,
                batch_size=CHUNK,
                loss_type="cross_entropy",
                verbose=False,
            ),
        ),
    }
    square = PublishedSquare(
        network, norm=THEIRS["linf"], eps=linf.eps, n_queries=QUERIES, seed=0, resc_schedule=False, device="cpu"
    )
    found[f"square-{QUERIES} {linf}"] = {
        **ours(network, f"square-{QUERIES}", linf),
        "pyautoattack": square.perturb,
        "ART": by_art(
            estimator,
            lambda it: SquareAttack(
                it, norm=np.inf, eps=linf.eps, max_iter=QUERIES, nb_restarts=1, batch_size=CHUNK, verbose=False
            ),
        ),
    }
    return found


def measured(network: Network, tools: dict[str, Tool], images: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """Every chunk through every tool, the order turned round each time; a warm-up is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    standing = dict.fromkeys(tools, 0)
    passes = {name: Passes() for name in tools}
    for tool in tools.values():
        tool(images[:4], labels[:4])
    for number in range(CHUNKS):
        part = slice(number * CHUNK, (number + 1) * CHUNK)
        for name in list(tools) if number % 2 == 0 else list(reversed(tools)):
            started = time.process_time()
            with counted() as chunk:
                adversarial = tools[name](images[part], labels[part])
            seconds[name].append(time.process_time() - started)
            passes[name].forward += chunk.forward
            passes[name].backward += chunk.backward
            with torch.no_grad():
                standing[name] += int((network(adversarial).argmax(1) == labels[part]).sum())
    return {
        name: {
            "robust_accuracy": round(100 * standing[name] / len(labels), 2),
            "time_ratio": round(statistics.median(a / b for a, b in zip(values, seconds["unfool"], strict=True)), 3),
            "passes_forward": round(passes[name].forward / len(labels), 1),
            "passes_backward": round(passes[name].backward / len(labels), 1),
        }
        for name, values in seconds.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="unfool's attacks beside those of other tools.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    given = material(arguments.data_dir, CHUNK * CHUNKS, CIFAR_IMAGES, EPOCHS)
    network = trained("autoattack", "robust", given, TRUNK, learning_rate=0.1).requires_grad_(False)
    batch = given.judged.batch()
    figures: dict[str, Any] = {"data": given.name, "images": len(batch)}
    figures["attacks"] = {
        name: measured(network, tools, batch.images, batch.labels("label"))
        for name, tools in contestants(network, BUDGETS[given.name]).items()
    }
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name, tools in figures["attacks"].items():
        print(name)
        for tool, value in tools.items():
            print(f"  {tool:<14}robust {value['robust_accuracy']:6.2f} %   time {value['time_ratio']:7.3f}   "
                  f"passes {value['passes_forward']:8.1f} / {value['passes_backward']:.1f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
