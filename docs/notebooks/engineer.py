# %% [markdown]
# # The engineer's path: how robust is my classifier, and can it be made more so?
#
# A classifier of your own goes through unfool unchanged, as long as it maps images in [0,1] to logits. Here it
# is a small one on the digits that come with the package, so that the whole notebook takes seconds.

# %%
import torch
from torch import nn

import unfool
from unfool import AccuracyClaim, EvaluationSettings, HardenSettings, Linf, attacks

train, test = unfool.open_table("digits", "train"), unfool.open_table("digits", "test")
few = test.sample(48, unfool.Streams(0))

torch.manual_seed(0)
features = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1))
network = nn.Sequential(features, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
images, labels = train.batch().images, train.labels()
optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9)
for _ in range(80):
    rows = torch.randint(len(labels), (64,))
    loss = nn.functional.cross_entropy(network(images[rows]), labels[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
network.eval()

# %% [markdown]
# ## How robust is it?
#
# One call gives the clean accuracy and that under attack, each with its 95 % interval, and a reliability
# report: reasons not to believe the figures, if there are any. In a notebook the result shows itself as a
# table.

# %%
threat = Linf(16 / 255)
before = unfool.evaluate(network, few, attacks.PGD(threat, steps=10), name="mine")
print(before)
print("reasons for doubt:", before.doubts)
before.to_frame()[["attack", "protocol", "accuracy", "low", "high"]]

# %% [markdown]
# Most images fall to a change that nobody sees. `before.show()` draws a few: clean, adversarial, and the
# difference, magnified.

# %%
figure = before.show(count=3)

# %% [markdown]
# ## Harden it
#
# `harden` fine-tunes a copy on its own adversarial examples, and tests on the same images what that bought and
# cost. On a real network give `minutes=15` instead of `steps`.

# %%
settings = HardenSettings(threat=threat, steps=40, batch_size=32, augmentation="none", attack="pgd-10", images=40)
hardened = unfool.harden(network, train, test, "hardened", settings=settings)
for attack, comparison in hardened.comparisons.items():
    gained, low, high = (100 * share for share in (comparison.difference, comparison.low, comparison.high))
    print(f"{attack}: {gained:+.1f} points [{low:+.1f}, {high:+.1f}]")

# %% [markdown]
# ## Keep it so
#
# A claim is a test for your CI: images are attacked until it is settled. On the command line it is `unfool
# evaluate … --claim '>=0.2' --sarif robust.sarif`, with an exit code.

# %%
settings = EvaluationSettings(claim=AccuracyClaim(">=", 0.2), reliability=False)
settled = unfool.evaluate(hardened.run.network, few, attacks.PGD(threat, steps=10), settings=settings)
print(settled.claim.words())
