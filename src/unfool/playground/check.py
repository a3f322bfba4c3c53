"""Ask a playground that is served once, as its users do, through the interface of its server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from unfool.core.errors import UnfoolError


class PlaygroundError(UnfoolError):
    """A playground that does not answer, or not as it should (exit code 1)."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a playground answered: its sentence, and how much there is to play with."""

    said: str
    systems: int
    pictures: int

    def to_json(self) -> dict[str, str | int]:
        """The JSON object that --json prints."""
        return asdict(self)


def ask_once(url: str) -> Answer:
    """Load the first system and attack its first picture; raises PlaygroundError for any other answer than one."""
    from gradio_client import Client

    try:
        client = Client(url, verbose=False, analytics_enabled=False, download_files=False)
        loaded: dict[str, Any] = client.predict("", api_name="/load")
        if not loaded["pictures"]:
            return Answer(said="there is no picture to attack", systems=len(loaded["systems"]), pictures=0)
        answer: dict[str, Any] = client.predict(
            loaded["system"], loaded["pictures"][0], "linf", 8, 10, "", api_name="/attack"
        )
        return Answer(said=answer["said"], systems=len(loaded["systems"]), pictures=len(loaded["pictures"]))
    except Exception as error:
        raise PlaygroundError(f"the playground at {url} did not answer ({type(error).__name__}: {error})") from error
