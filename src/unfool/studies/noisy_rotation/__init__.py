"""System E: does adversarial noise make a pretext task teach better features?"""

from unfool.studies.noisy_rotation.study import NoisyRotation as NoisyRotation
