"""The rivals of `minimum_norm.py`: minimum-norm attacks of foolbox and of adv-lib, each within the budget of passes.

A budget of ``steps`` allows ``steps`` passes of each image forward and as many backward. An attack whose step costs
more passes, or that searches in rounds, takes the fewer steps. Of foolbox: FMN in every norm; DDN, DeepFool and
Carlini-Wagner in l2, DeepFool in linf, EAD in l1; Brendel-Bethge in every norm where numba is installed. adv-lib is
imported without what needs torchvision (``pip install --no-deps adv-lib``, in an environment of its own; PYTHONPATH may
name its folder).
"""

from __future__ import annotations

import importlib.util
import math
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""Network, images, labels and steps → changed images."""

FOOLBOX, BRENDEL_BETHGE, ADV_LIB = "foolbox", "foolbox-brendel-bethge", "adv-lib"
OPTIONAL = frozenset({BRENDEL_BETHGE})
"""Whose absence is no failure."""
HOW_TO_INSTALL = {
    FOOLBOX: "pip install foolbox",
    BRENDEL_BETHGE: "pip install numba",
    ADV_LIB: "pip install --no-deps adv-lib, or name its folder in PYTHONPATH",
}

CANDIDATES = 10
"""Classes that DeepFool compares in each step: that of the image and nine others, which cost a pass each way."""
ROUNDS = 3
"""Rounds in which Carlini-Wagner and EAD search for the weight of the class loss."""
BISECTIONS = 10
"""Passes forward of Brendel-Bethge that look for the boundary between an image and its start."""
_REACH = {"l2": 5.0, "linf": 0.3, "l1": 60.0}
"""Largest eps of the attack that bisects it."""
_ORDERS = {"l2": 2, "linf": math.inf, "l1": 1, "l0": 0}


def missing_rivals() -> list[str]:
    """The rivals that cannot be imported here, by their names in `HOW_TO_INSTALL`."""
    if _package("foolbox") is None:
        missing = [FOOLBOX, BRENDEL_BETHGE]
    else:
        missing = [] if _has_brendel_bethge() else [BRENDEL_BETHGE]
    return missing if _package("adv_lib") is not None else [*missing, ADV_LIB]


def _package(name: str) -> str | None:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    return spec.submodule_search_locations[0] if spec is not None and spec.submodule_search_locations else None


def _has_brendel_bethge() -> bool:
    """Whether foolbox found numba."""
    from foolbox.attacks import brendel_bethge

    return brendel_bethge.NUMBA_IMPORT_ERROR is None


def foolbox_attacks(norm: str) -> dict[str, Run]:
    """Those of foolbox; empty where it is missing."""
    if _package("foolbox") is None:
        return {}
    from foolbox import attacks

    fmn = {
        "l2": attacks.L2FMNAttack,
        "linf": attacks.LInfFMNAttack,
        "l1": attacks.L1FMNAttack,
        "l0": attacks.L0FMNAttack,
    }[norm]
    makers: dict[str, Callable[[int], Any]] = {"foolbox-fmn": lambda steps: fmn(steps=steps)}
    if norm == "l2":
        makers["foolbox-ddn"] = lambda steps: attacks.DDNAttack(steps=steps)
        makers["foolbox-deepfool"] = lambda steps: attacks.L2DeepFoolAttack(**_deepfool(steps))
        makers["foolbox-carlini-wagner"] = lambda steps: attacks.L2CarliniWagnerAttack(
            **_in_rounds(steps), stepsize=0.1, initial_const=1.0
        )
    if norm == "linf":
        makers["foolbox-deepfool"] = lambda steps: attacks.LinfDeepFoolAttack(**_deepfool(steps))
    if norm == "l1":
        # A step sends its image forward a second time: three passes in place of two.
        makers["foolbox-ead"] = lambda steps: attacks.EADAttack(
            **_in_rounds(2 * steps // 3), initial_stepsize=0.1, initial_const=10.0, regularization=0.03,
            decision_rule="L1",
        )  # fmt: skip
    every = {name: _by_foolbox(maker) for name, maker in makers.items()}
    if _has_brendel_bethge():
        following = {
            "l2": attacks.L2BrendelBethgeAttack,
            "linf": attacks.LinfinityBrendelBethgeAttack,
            "l1": attacks.L1BrendelBethgeAttack,
            "l0": attacks.L0BrendelBethgeAttack,
        }[norm]
        # Beside its steps: two passes forward for the start, and the bisection.
        beside = 1 + BISECTIONS // 2
        every[BRENDEL_BETHGE] = _by_foolbox(
            lambda steps: following(steps=max(1, steps - beside), binary_search_steps=BISECTIONS), starts=True
        )
    return every


def _deepfool(steps: int) -> dict[str, Any]:
    """The steps of DeepFool in a budget: each costs a pass each way for each other class, and one more is the first."""
    return {"steps": max(1, (2 * steps - 1) // (2 * (CANDIDATES - 1))), "candidates": CANDIDATES}


def _in_rounds(steps: int) -> dict[str, Any]:
    """The rounds of an attack in a budget, all of their steps taken."""
    return {"binary_search_steps": ROUNDS, "steps": max(1, steps // ROUNDS), "abort_early": False}


def _by_foolbox(make: Callable[[int], Any], starts: bool = False) -> Run:
    """An attack of foolbox, made for a number of steps; some start from misclassified images."""

    def run(network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
        import foolbox

        wrapped = foolbox.models.pytorch.PyTorchModel(network, bounds=(0.0, 1.0), device="cpu")
        start = {"starting_points": _nearest_of_another_class(network, images, labels)} if starts else {}
        return make(steps).run(wrapped, images, foolbox.criteria.Misclassification(labels), **start)

    return run


def _nearest_of_another_class(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """For each image the nearest of all that the network gives another class than its label."""
    with torch.no_grad():
        wrong = network(images).argmax(1)[None] != labels[:, None]
    lengths = torch.cdist(images.flatten(1), images.flatten(1)).masked_fill(~wrong, math.inf)
    return images[lengths.argmin(1)]


def published_attacks(norm: str) -> dict[str, Run]:
    """Those of adv-lib; empty where it is missing."""
    root = _package("adv_lib")
    if root is None:
        return {}
    _only_parts_that_need_no_torchvision(root)
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
