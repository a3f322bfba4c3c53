"""Trunks: the shared body of a network, with named stages. One file an architecture; each registers itself."""

from unfool.models.trunks.base import TRUNKS, Trunk, TrunkSpec, build_trunk, empty_trunk, scaled, trunk_spec

__all__ = ["TRUNKS", "Trunk", "TrunkSpec", "build_trunk", "empty_trunk", "scaled", "trunk_spec"]
