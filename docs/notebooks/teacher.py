# %% [markdown]
# # The teacher's path: two ways in which a network seems robust
#
# Two lessons for a class, on networks that come with the package. Each is one figure that looks good, and the
# true one.

# %%
import torch
from torch import nn

import unfool
from unfool import EvaluationSettings, Linf, attacks, zoo

few = unfool.open_table("digits", "test").sample(64, unfool.Streams(0))
network, robust = zoo.load("digits"), zoo.load("digits-robust")
threat = Linf(16 / 255)
pgd = attacks.PGD(threat, steps=20)
quick = EvaluationSettings(reliability=False)


def shown(result):
    """The figures of an evaluation in a line."""
    return ", ".join(f"{row.attack} {100 * row.accuracy:.0f} %" for row in result.rows)


# %% [markdown]
# ## What an attack is
#
# A change of at most 16/255 a pixel, chosen by following the gradient of the loss uphill.

# %%
own = unfool.evaluate(network, few, pgd, name="digits", settings=quick)
print(shown(own))
figure = own.show(count=3)

# %% [markdown]
# ## First lesson: borrowed examples are no attack
#
# The same images, attacked on *another* network, fool this one far less. A defense that is tested on borrowed
# examples looks like this, whatever it does.

# %%
borrowed = unfool.classify(network, unfool.craft(robust, few, pgd))
print(f"borrowed {100 * borrowed.accuracy:.0f} % ({borrowed.protocol}), own {100 * own.rows[1].accuracy:.0f} %")

# %% [markdown]
# ## Second lesson: a gradient that vanishes
#
# The same network with its logits multiplied by a thousand: every prediction is the same, but the loss is flat,
# and gradients have nothing to follow. The reliability report sees it.

# %%


class Sharp(nn.Module):
    """A network that only looks robust."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return 1000 * self.inner(images)


masked = unfool.evaluate(Sharp(network), few, pgd, name="masked")
print(shown(masked))
for doubt in masked.doubts:
    print("!", doubt)

# %% [markdown]
# ## What does help
#
# A network that was trained on adversarial examples keeps more of its accuracy, under its own attack. The price
# is paid on clean images and in training time.

# %%
print(shown(unfool.evaluate(robust, few, pgd, name="digits-robust", settings=quick)))
with torch.inference_mode():
    print("clean logits of one image:", [round(float(value), 1) for value in robust(few.batch().images[:1])[0]])
