"""Ways to train a robust classifier side by side: what they cost, what they keep, and how far they overfit."""

from unfool.studies.adversarial_training.study import AdversarialTraining as AdversarialTraining
