"""A hardened classifier, and what hardening bought and cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unfool.core.files import JsonObject
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.statistics.comparison import Comparison
from unfool.training import TrainedRun


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """A hardened classifier, and what hardening bought and cost.

    Args:
        run: The training run; ``run.network`` is the hardened classifier.
        steps: The training steps.
        weights: Its weights under the classifier's own names.
        before: The evaluation of the classifier as it came.
        after: The evaluation of the hardened one, on the same images.
        comparisons: Paired tests of the two, by attack; ``"none"`` is clean.
        seconds: What each part took: ``"before"``, ``"training"`` and ``"after"``.
    """

    run: TrainedRun
    steps: int
    weights: Path
    before: Evaluation
    after: Evaluation
    comparisons: dict[str, Comparison]
    seconds: dict[str, float]

    def __repr__(self) -> str:
        gains = [f"{name} {100 * item.difference:+.1f} points" for name, item in self.comparisons.items()]
        return f"Hardened({self.weights}: {', '.join(gains)})"

    def to_json(self) -> JsonObject:
        """Both evaluations, the comparisons and the cost, as JSON takes them."""
        return {
            "steps": self.steps,
            "weights": str(self.weights),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "comparisons": {name: item.verdict for name, item in self.comparisons.items()},
            "cost": {"cpu_seconds": self.run.cpu_seconds, "model_images": self.run.model_images},
            "seconds": self.seconds,
        }
