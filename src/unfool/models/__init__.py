"""Networks: trunks with named stages, heads, `Network` (images in [0,1] → logits), weights files and fast copies.

Normalisation lives inside a `Network`, so that any other tool can attack one without a wrapper; its weights are
safetensors files that carry the architecture, and its initial weights come from `Streams`, never from the global
random state.
"""

from unfool.models import zoo
from unfool.models.foreign import adapt
from unfool.models.network import Network
from unfool.models.trunks import TRUNKS, TrunkSpec
from unfool.models.weights import load_network, save_network

__all__ = ["TRUNKS", "Network", "TrunkSpec", "adapt", "load_network", "save_network", "zoo"]
