# %% [markdown]
# # The researcher's path: does self-supervision make this network robust?
#
# A network learns labels and contrast at once. It is attacked itself, then with a reversal before it: the image
# moves *down* the contrastive loss before it is classified. What that is worth is said by attackers who know of
# it.

# %%
import unfool
from unfool import AuditSettings, LadderSettings, Linf, RunConfig, StageConfig, TaskConfig, attacks, defenses

train, test = unfool.open_table("digits", "train"), unfool.open_table("digits", "test")
few = test.sample(24, unfool.Streams(0))
threat = Linf(8 / 255)

# %% [markdown]
# ## Train
#
# A stage says which tasks are learnt at once, with which weights, and whether on perturbed images
# (`perturb="pgd-2"`). A run is its stages, one after the other; the same call goes on where it was stopped.

# %%
tasks = {"labels": TaskConfig(task="labels"), "contrast": TaskConfig(task="contrast", weight=0.5)}
stage = StageConfig(tasks=tasks, epochs=1, learning_rate=0.01, batch_size=64)
config = RunConfig(data="digits", trunk="convnet:stem=strided,widths=8-16-16", stages=(stage,))
run = unfool.train(config, train, "runs/both")
print(run)

# %% [markdown]
# ## Attack the network, and the network behind its reversal

# %%
pgd = attacks.PGD(threat, steps=10)
alone = unfool.evaluate(run.network, few, pgd, name="network", settings=unfool.EvaluationSettings(reliability=False))
reversal = defenses.Reverse(run.network, "contrast", threat=Linf(16 / 255), steps=2, calibrate_on=train)
borrowed = unfool.craft(run.network, few, pgd)
print(alone)
print(f"reversed examples that were made for the network alone: {unfool.classify(reversal, borrowed).accuracy:.2f}")

# %% [markdown]
# Those examples are borrowed: their maker knew nothing of the reversal. The **ladder** climbs from such
# attackers to ones who differentiate through it, and gives one verdict from all of them. These are two of its
# rungs at their smallest settings; the defaults are all rungs, and try harder.

# %%
settings = LadderSettings(threat=threat, steps=2, draws=2, targets=1, queries=4, lambdas=(1.0,))
ladder = unfool.ladder(reversal, few.sample(6, unfool.Streams(1)), "pgd-2", settings=settings, rungs="bc")
print(ladder.verdict)
ladder.to_frame()[["attack", "protocol", "accuracy"]]

# %% [markdown]
# ## What moves
#
# The **audit** asks of clean images what a reversal does to them.

# %%
audit = unfool.audit(reversal, few.sample(6, unfool.Streams(2)), settings=AuditSettings(threat=threat))
audit.to_frame()
