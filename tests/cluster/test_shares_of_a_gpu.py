"""Small pieces share a GPU of a node, whatever the asker has. Ray takes our word that the node has one."""

import subprocess
import sys
from pathlib import Path

import gpu_calls
import pytest
from three_nodes import ADDRESS, ThreeNodes

import unfool

pytestmark = pytest.mark.cluster


@pytest.mark.usefixtures("nodes")  # which says where no cluster can be made
def test_four_pieces_share_a_gpu_of_a_node(tmp_path):
    node = ThreeNodes("a", cores=4, gpus=1)
    try:
        asker = node.popen(
            [sys.executable, gpu_calls.__file__, ADDRESS, str(tmp_path)],
            source=Path(unfool.__file__).parents[1],
            stderr=subprocess.PIPE,
        )
        _, errors = asker.communicate(timeout=120)
        assert asker.returncode == 0, errors
    finally:
        node.close()
    assert [file.read_text() for file in tmp_path.glob("met-*")] == ["4 on cuda 0"] * 4
