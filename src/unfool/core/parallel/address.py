"""The address of a cluster, looked at before the engine is, which would try for minutes."""

from __future__ import annotations

import socket

from unfool.core.borders.reading import reason_of
from unfool.core.errors import SpecError, WorkerError

CONNECTING_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""


def check_address(address: str) -> None:
    """SpecError for what is neither HOST:PORT nor ``auto``, WorkerError for an address where nobody listens."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    number = int(port) if len(port) <= 5 and port.isascii() and port.isdecimal() else 0
    refusal = f"{address[:80]!r} is no address of a Ray cluster; give HOST:PORT of its head, or auto on a node of it"
    if not host or "/" in host or not 0 < number < 1 << 16:
        raise SpecError(refusal)
    if host.startswith("[") and host.endswith("]"):  # as an address of IPv6 is written before a port
        host = host[1:-1]
    try:
        socket.create_connection((host, number), CONNECTING_SECONDS).close()
    except ValueError as error:  # what no host can be called, such as a..b
        raise SpecError(refusal) from error
    except OSError as error:
        raise WorkerError(
            f"nobody listens at {address} ({reason_of(error)}); start a Ray cluster there (ray start --head), or check "
            "the address"
        ) from error
