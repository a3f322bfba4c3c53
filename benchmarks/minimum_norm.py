"""How near the minimum-norm attacks come to the nearest examples that anyone finds, at equal passes.

    python benchmarks/minimum_norm.py [--json] [--images N] [--steps N] [--network NAME] [--norm NORM] [--state DIR]
    python benchmarks/minimum_norm.py --json > results/benchmarks/minimum_norm.json

On two networks, an adversarially trained one of digits and one of CIFAR-10 (where the data directory has it), every
attack may send each image through the network so many times, forward and backward: ours, those of foolbox, and those of
adv-lib where it can be imported (``pip install --no-deps adv-lib``, in an environment of its own; PYTHONPATH may name
its folder). The envelope is the least distance that any of them reached, image by image. Each figure is the area under
accuracy over distance of our attack, up to the largest distance of the envelope, over that of the envelope
(local optimality; Cinà et al., "AttackBench", AAAI 2025, section 3.2, without the cut at a fixed eps).

In l0 the bound is on the area over that of sigma-zero's own code, where adv-lib has it: distances are whole pixels
there, and minima are many.

Distances are recomputed here, and what does not fool the network counts as none; in l0 pixels are counted, all channels
as one. What an attack found is kept in the state folder, so that a run that was stopped goes on after its last attack;
it is measured anew where the network, the images, this file or unfool's code changed.
The exit code is 1 where a bound is missed, `LIMIT`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from kept_results import code, kept_or
from torch import Tensor, nn

from unfool import attacks, identity, load_network, open_table
from unfool.attacks.minimum_norm.attacks import whole_box
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem
from unfool.core.geometry import GEOMETRIES
from unfool.core.streams import Streams
from unfool.data.folders import data_folder
from unfool.models.modes import frozen_eval

NETWORKS = {"digits": ("zoo:digits-robust", "digits", 64), "cifar10": ("zoo:cifar10-robust", "cifar10", 32)}
"""Network, data, and number of images."""
NORMS = ("l2", "linf", "l1", "l0")
OURS = {
    "l2": ("fmn-t", "ddn:losses=both", "ddn", "fmn"),
    "linf": ("fmn-t", "fmn:losses=both", "fmn"),
    "l1": ("fmn-t", "fmn:losses=both", "fmn"),
    "l0": ("sigma-zero", "fmn"),
}
JUDGED = {"l2": "fmn-t", "linf": "fmn-t", "l1": "fmn-t", "l0": "sigma-zero"}
"""The attack of each norm whose area is held against the envelope; in l0 against that of the authors' own code."""
LIMIT = 1.02
AUTHORS = "adv-lib-sigma-zero"
STATE = Path(__file__).resolve().parent.parent / "runs" / "benchmarks" / "minimum_norm"
CODE = code(__file__)
_REACH = {"l2": 5.0, "linf": 0.3, "l1": 60.0}
"""Largest eps of the attack that bisects it."""
_ORDERS = {"l2": 2, "linf": math.inf, "l1": 1, "l0": 0}

Run = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


class Counted(nn.Module):
    """A network that counts the images that go through it, forward and backward."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.forwards = self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        self.forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def our_attack(text: str, norm: str) -> Run:
    """One of our attacks, without a radius."""

    def run(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
        threat = whole_box(norm, tuple(images.shape[1:]))
        # Two losses are two paths, of half the steps.
        attack: Any = attacks.make_attack(text, threat, {"steps": steps // 2 if "both" in text else steps})
        with frozen_eval(network):
            problem = Problem(
                objective=LabelLoss(network, labels, attack.loss),
                images=images,
                ids=torch.arange(len(images)),
                streams=Streams(0),
            )
            return attack.search.nearest(problem).images

    return run


def foolbox_attacks(norm: str) -> dict[str, Run]:
    """Those of foolbox; empty, with a reason on stderr, where it is not installed."""
    if importlib.util.find_spec("foolbox") is None:
        print("foolbox is not installed: its attacks are left out", file=sys.stderr)
        return {}
    import foolbox

    fmn = {
        "l2": foolbox.attacks.L2FMNAttack,
        "linf": foolbox.attacks.LInfFMNAttack,
        "l1": foolbox.attacks.L1FMNAttack,
        "l0": foolbox.attacks.L0FMNAttack,
    }[norm]
    makers = {"foolbox-fmn": fmn, **({"foolbox-ddn": foolbox.attacks.DDNAttack} if norm == "l2" else {})}

    def made(maker: Any) -> Run:
        def run(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
            wrapped = foolbox.models.pytorch.PyTorchModel(network, bounds=(0.0, 1.0), device="cpu")
            return maker(steps=steps).run(wrapped, images, foolbox.criteria.Misclassification(labels))

        return run

    return {name: made(maker) for name, maker in makers.items()}


def published_attacks(norm: str) -> dict[str, Run]:
    """Those of adv-lib; empty, with a reason on stderr, where it is not there."""
    spec = importlib.util.find_spec("adv_lib")
    if spec is None or not spec.submodule_search_locations:
        print("adv-lib is not installed: its attacks are left out", file=sys.stderr)
        return {}
    _only_parts_that_need_no_torchvision(spec.submodule_search_locations[0])
    from adv_lib.attacks.augmented_lagrangian import alma
    from adv_lib.attacks.auto_pgd import minimal_apgd
    from adv_lib.attacks.decoupled_direction_norm import ddn
    from adv_lib.attacks.fast_adaptive_boundary.fast_adaptive_boundary import fab
    from adv_lib.attacks.fast_minimum_norm import fmn
    from adv_lib.attacks.primal_dual_gradient_descent import pdgd, pdpgd
    from adv_lib.attacks.sigma_zero import sigma_zero

    order = _ORDERS[norm]
    every: dict[str, Run] = {"adv-lib-fmn": lambda net, x, y, steps: fmn(net, x, y, norm=order, steps=steps)}
    if norm != "l0":
        # A step costs three passes, here towards three classes each; a bisection of eps has ten rounds.
        every["adv-lib-fab"] = lambda net, x, y, steps: fab(
            net, x.clone(), y, norm=order, n_iter=2 * steps // 9, restarts=3, targeted_restarts=True
        )
        every["adv-lib-apgd"] = lambda net, x, y, steps: minimal_apgd(
            net, x, y, norm=order, max_eps=_REACH[norm], binary_search_steps=10, n_iter=steps // 10 - 2
        )
    if norm == "linf":
        every["adv-lib-fmn-10"] = lambda net, x, y, steps: fmn(net, x, y, norm=order, steps=steps, α_init=10.0)
    if norm == "l2":
        every["adv-lib-ddn"] = lambda net, x, y, steps: ddn(net, x, y, steps=steps, levels=None)
        every["adv-lib-pdgd"] = lambda net, x, y, steps: pdgd(net, x, y, num_steps=steps)
    if norm in ("l2", "l1"):
        every["adv-lib-alma"] = lambda net, x, y, steps: alma(
            net, x, y, num_steps=steps, distance=norm, init_lr_distance=0.1 if norm == "l2" else 0.5
        )
    if norm != "l2":
        every["adv-lib-pdpgd"] = lambda net, x, y, steps: pdpgd(net, x, y, norm=order, num_steps=steps)
    if norm == "l0":
        every["adv-lib-sigma-zero"] = lambda net, x, y, steps: sigma_zero(net, x, y, num_steps=steps)
    return every


def _only_parts_that_need_no_torchvision(root: str) -> None:
    """Make adv-lib's packages without their ``__init__``, and stand-ins for what these attacks never call."""
    for name in ("attacks", "attacks.fast_adaptive_boundary", "distances", "utils"):
        package = types.ModuleType(f"adv_lib.{name}")
        package.__path__ = [f"{root}/{name.replace('.', '/')}"]
        sys.modules.setdefault(f"adv_lib.{name}", package)
    absent = {
        "distances.color_difference": ["ciede2000_loss"],
        "distances.lpips": ["LPIPS"],
        "distances.structural_similarity": ["ms_ssim_loss", "ssim_loss"],
        "utils.visdom_logger": ["VisdomLogger"],
        "utils.attack_utils": ["get_all_targets"],
    }
    for name, members in absent.items():
        module = types.ModuleType(f"adv_lib.{name}")
        for member in members:
            setattr(module, member, object)
        sys.modules.setdefault(f"adv_lib.{name}", module)


def distances(network: nn.Module, images: Tensor, labels: Tensor, changed: Tensor, norm: str) -> list[float | None]:
    """The length of each change that fools the network inside the box; None for the others."""
    inside = changed.detach().clamp(0.0, 1.0)
    with torch.no_grad():
        fooled = network(inside).argmax(1) != labels
    lengths = GEOMETRIES[norm].norm(inside.double() - images.double())
    return [length if yes else None for length, yes in zip(lengths.tolist(), fooled.tolist(), strict=True)]


def measured(name: str, norm: str, run: Run, material: tuple[Any, Tensor, Tensor], arguments: Any) -> dict[str, Any]:
    """Distances, passes for each image and CPU seconds of one attack, as the state folder has them or now measured."""
    (kind, network), images, labels = material
    request = {
        "network": identity(network),
        "images": hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest(),
        "steps": arguments.steps,
        "code": CODE,
    }

    def attacked() -> dict[str, Any]:
        counted, started = Counted(network), time.process_time()
        changed = run(counted, images, labels, arguments.steps)
        return {
            "distances": distances(network, images, labels, changed, norm),
            "forwards": counted.forwards / len(images),
            "backwards": counted.backwards / len(images),
            "seconds": round(time.process_time() - started, 1),
        }

    folder = Path(arguments.state) / f"{len(images)}-{arguments.steps}"
    return kept_or(folder / f"{kind}-{norm}-{name.replace(':', '-')}.json", request, attacked)


def areas(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """By attack the area under accuracy over distance, over that of the envelope of all."""
    rows = [[math.inf if each is None else each for each in result["distances"]] for result in results.values()]
    lengths = torch.tensor(rows, dtype=torch.float64)
    envelope = lengths.amin(0)
    farthest = float(envelope[envelope < math.inf].max())
    of_envelope = float(envelope.clamp(max=farthest).mean())
    return {
        name: float(row.clamp(max=farthest).mean()) / of_envelope for name, row in zip(results, lengths, strict=True)
    }


def main() -> int:
    """Run the benchmark; 1 where a bound is missed."""
    parser = argparse.ArgumentParser(description="Benchmark of unfool's minimum-norm attacks.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of areas")
    parser.add_argument("--images", type=int, help="images of each network (default: 64 of digits, 32 of cifar10)")
    parser.add_argument("--steps", type=int, default=200, help="forward and backward passes for each image")
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="default: all")
    parser.add_argument("--norm", choices=NORMS, action="append", help="default: all")
    parser.add_argument("--state", default=STATE, help="where finished attacks are kept")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"steps": arguments.steps}
    missed = []
    for kind in arguments.network or list(NETWORKS):
        if kind == "cifar10" and data_folder(None) is None:
            print("cifar10 is left out: set UNFOOL_DATA_DIR to a directory that has it", file=sys.stderr)
            continue
        place, data, count = NETWORKS[kind]
        network = load_network(place).eval()
        table = open_table(data, "test").sample(arguments.images or count, Streams(0))
        figures[f"{kind}_images"] = len(table)
        images, labels = table.batch().images, table.labels()
        for norm in arguments.norm or NORMS:
            runs = {text: our_attack(text, norm) for text in OURS[norm]}
            runs |= foolbox_attacks(norm) | published_attacks(norm)
            results = {}
            for name, run in runs.items():
                results[name] = measured(name, norm, run, ((kind, network), images, labels), arguments)
                print(f"{kind} {norm} {name}: {results[name]['seconds']} s", file=sys.stderr, flush=True)
            for name, area in areas(results).items():
                key = f"{kind}_{norm}_{name}"
                figures[key] = round(area, 4)
                figures[f"{key}_passes"] = round(results[name]["forwards"] + results[name]["backwards"], 1)
                if not arguments.json:
                    print(f"{key}: area {area:.4f} of the envelope's, {figures[f'{key}_passes']} passes an image")
            rival = figures.get(f"{kind}_{norm}_{AUTHORS}", 1.0) if norm == "l0" else 1.0
            if figures[f"{kind}_{norm}_{JUDGED[norm]}"] > LIMIT * rival:
                missed.append(f"{kind}_{norm}_{JUDGED[norm]}")
    if arguments.json:
        print(json.dumps(figures))
    for key in missed:
        print(f"{key} is {figures[key]}, above {LIMIT}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
