"""Files of earlier versions do not say whether an attack follows gradients: its name does."""

import pytest

from unfool.evaluation.crafting.stored_names import follows_gradients_by_name


@pytest.mark.parametrize(
    ("name", "follows"),
    [("square-5000", False), ("pgd-20", True), ("fab", True), ("autoattack", None), ("worst-case", None)],
)
def test_the_name_of_an_attack_says_whether_it_follows_gradients(name, follows):
    assert follows_gradients_by_name(name) is follows
