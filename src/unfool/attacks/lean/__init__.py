"""The lean attack: short runs towards few classes, in few of the passes of AutoAttack."""
