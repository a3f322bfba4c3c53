"""Rungs of an attacker who does not know the defense: the yardstick, its examples replayed, and bare queries."""

from __future__ import annotations

from unfool.attacks import Attack, Square
from unfool.attacks.lean.attack import Lean
from unfool.evaluation.adaptive.ladder_run import LadderRun
from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung, Rung, RungContext
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.lean.steps import confirmed_over_draws
from unfool.evaluation.records import Records


@RUNGS.add("static")
class StaticAttack(Rung):
    """(a) A strong attack on the network without the defense: the accuracy that a defense must exceed."""

    key = "a"
    name = "static"
    title = "the network by itself, the yardstick"
    adaptive = False
    required = True
    without_gradient = "so the yardstick is too high"

    def evaluate(self, run: LadderRun) -> Records:
        proxy = proxy_for(run.network, run.settings.precision)
        # Lean confirms its successes over several draws by itself.
        lucky = run.random_network and not isinstance(run.attack, Lean)
        attack = confirmed_over_draws(run.attack) if lucky else run.attack
        examples = run.craft(self.key, run.network, attack, proxy)
        run.start_from(examples)
        return run.evaluate_on(run.network, examples)


@RUNGS.add("replayed")
class ReplayedExamples(Rung):
    """(b) The examples of the static attack, replayed on the defense: what published reversals were evaluated by."""

    key = "b"
    name = "replayed"
    title = "the examples of (a), replayed"
    adaptive = False
    required = True

    def evaluate(self, run: LadderRun) -> Records:
        return run.evaluate(run.sets[StaticAttack.key])


@RUNGS.add("square")
class SquareQueries(AdaptiveRung):
    """(i) Random search that only asks the deployed defense for its logits (Square, Andriushchenko et al., ECCV 2020).

    It follows no gradient, so no purification can mislead it.
    """

    key = "i"
    name = "square"
    title = "queries of the defense alone (Square)"

    def attack(self, context: RungContext) -> Attack:
        return Square(context.threat, steps=context.settings.queries)
