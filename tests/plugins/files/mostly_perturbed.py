"""A method of adversarial training: three quarters of the loss on perturbed views, one quarter on clean ones."""

from unfool.training.adversarial.methods import ADVERSARIAL_METHODS, AdversarialMethod


def three_to_one(clean, perturbed, strength):
    """Losses (B,) on clean and perturbed views → losses (B,)."""
    return (clean + 3 * perturbed) / 4


ADVERSARIAL_METHODS.add("mostly-perturbed")(
    AdversarialMethod(description="a quarter clean, three quarters perturbed", combines=three_to_one)
)
