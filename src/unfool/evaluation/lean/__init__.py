"""The lean attack at work: on all images, then checks, then AutoAttack's other parts on a sample or on what stands."""
