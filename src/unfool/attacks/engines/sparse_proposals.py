# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The random proposals of the Square attack in l0: pixels instead of windows, each of them black or white by channel.

Croce et al., "Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial attacks", AAAI 2022,
algorithm 1 and section 4.1, with the schedule of Square.

Legend: n images still attacked, k pixels that may change, of which m are exchanged; C channels, H×W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unfool.attacks.engines.square_proposals import Proposals
from unfool.core.geometry import GEOMETRIES
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel


class L0Proposals(Proposals):
    """Some of the changed pixels go back to their origins, and as many others become corners of the colour cube."""

    def __init__(self, origins: Tensor, threat: ThreatModel):
        super().__init__(origins, threat)
        self.pixels = origins.shape[2] * origins.shape[3]
        self.count = min(int(threat.eps), self.pixels)
        # A rank for each changed pixel; a place and a colour for each new one.
        self.draws = self.count * (2 + origins.shape[1])

    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """As many pixels as may change, anywhere, each of a colour that is 0 or 1 in every channel."""
        origins = self.origins[rows]
        drawn = GEOMETRIES["l0"].sample_within(ids, tuple(origins.shape[1:]), streams, self.count)
        return torch.where((drawn != 0).any(1, keepdim=True), (drawn > 0).to(origins.dtype), origins)

    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """As many pixels are exchanged as a window of the side has of its image's area, at least one."""
        m = min(self.count, max(1, round(self.count * side * side / self.pixels)))
        each, channels = torch.arange(len(rows), device=rows.device), points.shape[1]
        ranks, places, colours = draws.split([self.count, self.count, self.count * channels], dim=1)
        origins = self.origins.index_select(0, rows).flatten(2)
        view = points.flatten(2)
        before = view.clone()
        changed = (view != origins).any(1)
        # The changed pixels first, in the order of the image; then m of them by their drawn ranks.
        listed = changed.int().argsort(dim=1, descending=True, stable=True)[:, : self.count]
        known = changed.gather(1, listed)
        chosen = torch.where(known, ranks, math.inf).argsort(dim=1, stable=True)[:, :m]
        back = listed.gather(1, chosen)
        # Pixels that are as they were go back too, which changes nothing: so many more may be new.
        index = back[:, None].expand(-1, channels, -1)
        view.scatter_(2, index, origins.gather(2, index))
        new = (places[:, :m] * self.pixels).long()
        # The first draw of a place counts, on every device.
        order = torch.arange(m, device=rows.device).expand_as(new)
        draw = torch.full_like(changed, m, dtype=torch.int64).scatter_reduce_(1, new, order, "amin")
        corners = (colours.view(len(rows), channels, self.count)[:, :, :m] < 0.5).to(view.dtype)
        drawn = corners.gather(2, draw.clamp(max=m - 1)[:, None].expand(-1, channels, -1))
        view = torch.where((draw < m)[:, None], drawn, view)
        differs = (view != before).flatten(1).any(1)
        points = view.view_as(points)
        return (points, each) if bool(differs.all()) else (points[differs], each[differs])

    def accept(self, rows: Tensor, points: Tensor) -> None:
        """Nothing to do: the changed pixels are those that differ from their origins."""
