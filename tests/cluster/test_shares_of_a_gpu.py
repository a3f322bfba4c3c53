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
def test_four_pieces_share_a_gpu_of_a_node_and_nobody_waits_for_it_when_that_node_has_died(tmp_path):
    nodes = ThreeNodes("a")
    try:
        nodes.start("gpu", f"--address={ADDRESS}", cores=4, gpus=1).wait()
        asker = nodes.popen(
            [sys.executable, gpu_calls.__file__, ADDRESS, str(tmp_path)],
            source=Path(unfool.__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert asker.stdout.readline() == "done\n"
        assert [file.read_text() for file in tmp_path.glob("met-*")] == ["4 on cuda 0"] * 4
        nodes.kill("gpu")
        # The engine still counts the node's GPU now.
        words, errors = asker.communicate("\n", timeout=120)
        assert (asker.returncode, words) == (0, "cpu\n"), errors
    finally:
        nodes.close()
