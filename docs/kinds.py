"""Kinds of classifiers as people have them, tiny and with random weights: what docs/matrix.py runs every command on.

Each function is the NAME of a ``--model kinds.py:NAME``; images are (B, 3, 16, 16), classes four.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASSES = 4
DRAWN = np.random.RandomState(0).rand(40, 3 * 16 * 16).astype("f4")


class Net(nn.Module):
    """The classifier inside all others; ``act`` makes of its logits what the model gives."""

    def __init__(self, act: Callable[[Tensor], object] | None = None, outputs: int = CLASSES):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.out = nn.Linear(8, outputs)
        self.act = act

    def logits(self, images: Tensor) -> Tensor:
        return self.out(self.body(self.stem(images)).mean((2, 3)))

    def forward(self, images: Tensor) -> object:
        logits = self.logits(images)
        return logits if self.act is None else self.act(logits)


@dataclass
class Output:
    loss: object
    logits: Tensor


class Before(Net):
    """Its images are prepared by a function first."""

    def __init__(self, prepare: Callable[[Tensor], Tensor]):
        super().__init__()
        self.prepare = prepare

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.prepare(images))


class Fixed(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images.view(6, 3, 16, 16))


class Reentrant(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.out(checkpoint(self.body, self.stem(images), use_reentrant=True).mean((2, 3)))


class Keeping(Net):
    """Counts its calls, keeps a feature map and a list of them, and has a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.history = 0, []
        self.body.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.last = output
        self.history.append(output.shape)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.logits(images)


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.LazyLinear(CLASSES)


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """The same random weights each time, in eval mode."""
    torch.manual_seed(0)
    return make().eval()


def plain() -> nn.Module:
    return made(Net)


def with_logits() -> nn.Module:
    return made(lambda: Net(lambda logits: Output(None, logits)))


def dictionary() -> nn.Module:
    return made(lambda: Net(lambda logits: {"loss": None, "logits": logits}))


def first_of_tuple() -> nn.Module:
    return made(lambda: Net(lambda logits: (logits, logits.mean())))


def nested() -> nn.Module:
    return made(lambda: Net(lambda logits: {"heads": [logits * 0, {"main": logits}]}))


def single_logit() -> nn.Module:
    return made(lambda: Net(outputs=1))


def one_pixel() -> nn.Module:
    return made(lambda: Net(lambda logits: logits[:, :, None, None]))


def channels_last() -> nn.Module:
    return made(lambda: Before(lambda images: images.permute(0, 3, 1, 2)))


def in_255() -> nn.Module:
    return made(lambda: Before(lambda images: images / 255))


def half() -> nn.Module:
    return plain().half()


def bfloat16() -> nn.Module:
    return plain().bfloat16()


def fixed_batch() -> nn.Module:
    return made(Fixed)


def parallel() -> nn.Module:
    return nn.DataParallel(plain())


def compiled() -> object:
    return torch.compile(plain())


def reentrant() -> nn.Module:
    return made(Reentrant)


def keeping() -> nn.Module:
    return made(Keeping)


def lazy() -> nn.Module:
    return made(Lazy)


def numpy_scores(images: np.ndarray) -> np.ndarray:
    return np.asarray(images).reshape(len(images), -1) @ DRAWN[:CLASSES].T


def torch_scores(images: Tensor) -> Tensor:
    return images.float().flatten(1) @ torch.from_numpy(DRAWN[:CLASSES].T)


def estimator() -> LogisticRegression:
    return LogisticRegression().fit(DRAWN, np.arange(len(DRAWN)) % CLASSES)
