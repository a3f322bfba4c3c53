"""What two processes do that craft together, apart from pytest so that they start soon."""

import torch
import torch.distributed
from tiny_systems import make_network, make_table

from unfool.attacks import make_attack
from unfool.evaluation import craft


def crafted(folder=None):
    attack = make_attack("autoattack:steps=5,queries=20", "linf:8/255")
    return craft(make_network(), make_table(24), attack, batch_size=5, folder=folder)


def run(rank, home):
    """Craft twice, the second time in a folder that lets it resume, and save what each gives to this process."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{home}/meet", rank=rank, world_size=2)
    for name, folder in (("plain", None), ("resumable", f"{home}/kept")):
        torch.save(crafted(folder).__dict__, f"{home}/{name}-{rank}.pt")
    torch.distributed.destroy_process_group()
