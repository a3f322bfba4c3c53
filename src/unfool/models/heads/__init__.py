"""Heads: what a task puts on a trunk's features. One file a family; each registers itself."""

from unfool.models.heads.base import (
    HEADS,
    Head,
    HeadDescription,
    HeadSetting,
    LinearHead,
    MlpHead,
    build_head,
    empty_head,
)

__all__ = ["HEADS", "Head", "HeadDescription", "HeadSetting", "LinearHead", "MlpHead", "build_head", "empty_head"]
