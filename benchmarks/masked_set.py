"""`lean.py --masked`: what lean says of classifiers that hide their gradients, beside the strongest attack known here.

Subjects are the wrappers of `masked.py` around a robust network (``--around``), and the networks of `collapsed.py`.
Lean must escalate on each on which anything stands, and the examples it ends with must leave no more standing than an
attacker leaves who knows what hides the gradients: all of AutoAttack (APGD on the cross-entropy, APGD and FAB towards
nine classes, 100 steps each, and Square) on the classifier seen through, which goes on until the classifier as it is
confirms the example, then all of it on the classifier as it is, on the images that still stand; the worst on each
image. A call of a classifier that looks at the batch confirms nothing: there both attack all images, and the examples
are judged at the end. One that draws is attacked seen through alone, over a few of its draws, by two kinds of APGD
(`AVERAGED`), since each pass costs as many; an image counts by the share of ``DRAWS`` calls that are right. Keys, for
each network:

* ``…_accuracy``: robust accuracy by the examples that lean ends with; ``…_remark``: what lean says of it;
* ``…_known``: by the strongest attack known here; ``…_gap``: the difference in points, at most ``MOST_GAP``;
* ``…_first``: by PGD-20 as one would run it (of collapsed networks: the single step that they were trained on);
* ``…_seconds``: CPU seconds of lean;
* ``silent``: networks on which something stands and lean did not escalate; ``higher``: those with a larger gap.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from collapsed import COLLAPSED, EPS, collapsed
from kept_results import code
from lean_subjects import CHUNK, EPOCHS, NARROW_IMAGES, Subject
from masked import MASKED, Masked
from networks import material
from torch import Tensor, nn

from unfool import craft
from unfool.attacks import ProxySettings
from unfool.attacks.proxy import SurrogateSettings

MASKED_IMAGES = 64
DRAWS = 10
MOST_GAP = 1.0
"""Points by which lean's last number may lie above that of the strongest attack known here."""
QUERIES = 1000
KNOWN = f"autoattack:queries={QUERIES}"
AVERAGED = ("apgd-ce", "apgd-t:targets=4,steps=50")
"""The strongest attacks known here: of a classifier that gives the same at every call, and of one that draws."""
LEAN = f"lean:queries={QUERIES}"
"""With fewer queries of Square than usual: what hides gradients shows long before."""

CODE = code(__file__, Path(__file__).with_name("masked.py"))
"""Of all that the results follow from, the networks apart."""

Makers = dict[str, Callable[[], Subject]]


def masked_subjects(arguments: argparse.Namespace, makers: Makers) -> Makers:
    """What makes each subject, by name."""

    def wrapped(name: str, wrap: type[Masked]) -> Subject:
        inside = makers[arguments.around]()
        return inside.around(f"masked-{name}", wrap(inside.network))

    def trained(kind: str) -> Subject:
        used = material(arguments.data_dir, max(CHUNK, arguments.images), NARROW_IMAGES, EPOCHS)
        network = collapsed(kind, used.name, used.training["robust"], Path(arguments.kept) / "networks")
        judged = used.judged.subset(torch.arange(min(arguments.images, len(used.judged))))
        return Subject(
            f"collapsed-{kind}", network, judged, f"linf:{EPS[used.name]}", Path(arguments.kept), adversarial=True
        )

    own: Makers = {name: lambda name=name, wrap=wrap: wrapped(name, wrap) for name, wrap in MASKED.items()}
    return own | {f"collapsed-{kind}": lambda kind=kind: trained(kind) for kind in COLLAPSED}


def right(network: nn.Module, images: Tensor, labels: Tensor, first: int = 0) -> Tensor:
    """The share (B,) of calls in which each image is classified correctly; draws are those of seeds from ``first``."""
    calls = DRAWS if getattr(network, "random", False) else 1
    share = torch.zeros(len(labels))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for seed in range(first, first + calls):
            torch.manual_seed(seed)
            share += (network(images).argmax(1) == labels).float() / calls
    return share


def known(subject: Subject) -> dict[str, Any]:
    """The robust accuracies, in percent, by the strongest attack known here and by each of its parts."""
    network, table = subject.network, subject.table
    images, labels = table.batch().images, table.labels()
    ends, standing = {"clean": images}, torch.arange(len(images))

    def attack(model: nn.Module, name: str, proxy: ProxySettings | None = None) -> Tensor:
        """Examples of the images that stand."""
        return craft(model, table.subset(standing), name, threat=subject.threat, proxy=proxy).read(slice(None))

    if isinstance(network, Masked):
        seen = network.seen_through(images).eval()
        words = {"name": "seen-through", "words": "an attack on the classifier seen through", "why": "it is known"}
        if network.random:
            ends |= {name: attack(seen, name) for name in AVERAGED}
        elif network.confirms:
            through = SurrogateSettings(make=lambda model: seen, **words)
            ends["seen through"] = attack(network, KNOWN, proxy=through)
            standing = right(network, ends["seen through"], labels).nonzero().squeeze(1)
        else:
            ends["seen through"] = attack(seen, KNOWN)
    if not getattr(network, "random", False) and len(standing):
        # What fell before stays as it fell.
        ends["as it is"] = [*ends.values()][-1].clone()
        ends["as it is"][standing] = attack(network, KNOWN)
    # Chosen by some draws and judged by others, so that luck is no success.
    chosen = torch.stack([right(network, points, labels, first=DRAWS) for points in ends.values()]).argmin(0)
    worst = torch.stack(list(ends.values()))[chosen, torch.arange(len(labels))]
    return {
        name: 100 * float(right(network, points, labels).mean()) for name, points in {"accuracy": worst, **ends}.items()
    }


def first_look(subject: Subject) -> dict[str, Any]:
    """What an attack says that trusts the gradients."""
    name = "fgsm" if subject.name.startswith("collapsed") else "pgd-20"
    images = craft(subject.network, subject.table, name, threat=subject.threat).read(slice(None))
    return {"attack": name, "accuracy": 100 * float(right(subject.network, images, subject.table.labels()).mean())}


def lean(subject: Subject) -> dict[str, Any]:
    """What lean ends with, escalation included."""
    started = time.process_time()
    examples = craft(subject.network, subject.table, LEAN, threat=subject.threat)
    seconds = time.process_time() - started
    accuracy = 100 * float(right(subject.network, examples.read(slice(None)), examples.labels).mean())
    return {"accuracy": accuracy, "remark": examples.settings["remark"], "seconds": seconds}


def measure_masked(arguments: argparse.Namespace, own: Makers) -> int:
    """Measure all masked networks and print the figures; 1 where lean is silent or ends too high."""
    figures: dict[str, Any] = {}
    silent: list[str] = []
    higher: list[str] = []
    for name in arguments.networks or own:
        subject = own[name]()
        count, table = len(subject.table), subject.table
        best = subject.kept_or(f"known-{count}", table, lambda subject=subject: known(subject), code=CODE)
        first = subject.kept_or(f"first-{count}", table, lambda subject=subject: first_look(subject), code=CODE)
        last = subject.kept_or(f"lean-{count}", table, lambda subject=subject: lean(subject), code=CODE)
        gap = last["accuracy"] - best["accuracy"]
        shown = {"accuracy": last["accuracy"], "known": best["accuracy"], "gap": gap, "first": first["accuracy"],
                 "seconds": last["seconds"]}  # fmt: skip
        figures |= {f"{name}_{key}": round(value, 2) for key, value in shown.items()}
        figures[f"{name}_remark"] = last["remark"]
        print(f"{name}: {shown}\n    {best}\n    {last['remark']}", file=sys.stderr, flush=True)
        # Where nothing stands there is nothing left to doubt.
        silent += [name] if "escalated" not in last["remark"] and last["accuracy"] > 0 else []
        higher += [name] if gap > MOST_GAP else []
    figures |= {"around": arguments.around, "images": arguments.images, "silent": silent, "higher": higher}
    print(json.dumps(figures) if arguments.json else f"silent: {silent}, higher than known: {higher}")
    return 1 if silent or higher else 0
