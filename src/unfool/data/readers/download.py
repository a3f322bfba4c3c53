"""Fetching a file over https: bounded and checksummed while it arrives, whole or absent."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from unfool.core.errors import DataError, UnfoolError
from unfool.core.files import atomic_path

TIMEOUT_SECONDS = 10.0
"""How long the other side may be silent."""
TOTAL_SECONDS = 4 * 3600.0
"""How long a whole download may take."""
_BLOCK = 1 << 20


class _Redirection(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to https where ``secure``, and takes no credentials to another host."""

    def __init__(self, secure: bool, error: type[UnfoolError]):
        self.secure = secure
        self.error = error

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https://") and (self.secure or not newurl.startswith("http://")):
            raise self.error(
                f"{req.full_url} redirects to {newurl[:200]!r}, which is not https; fetch the file by hand"
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and request.host != req.host:
            request.remove_header("Authorization")
        return request


def fetch(
    address: str,
    target: Path,
    sha256: str | None = None,
    seconds: float = TOTAL_SECONDS,
    *,
    most: int | None = None,
    headers: Mapping[str, str] | None = None,
    secure: bool = True,
    advice: str = "",
    error: type[UnfoolError] = DataError,
) -> Path:
    """Fetch ``address`` to ``target`` in at most ``seconds``, and no more than ``most`` bytes.

    ``secure``: only https is fetched. Raises ``error``, which ends in ``advice``, if it cannot be reached, breaks off,
    is longer, takes too long or has another checksum than ``sha256``.
    """
    if secure and not address.startswith("https://"):
        raise error(f"{address} is not an https address; only https is fetched")
    advice = advice or (
        f"fetch it by hand and put it into the data directory (UNFOOL_DATA_DIR, --data-dir) as {target.name}"
    )
    digest = hashlib.sha256()
    end, size = time.monotonic() + seconds, 0
    try:
        opener = urllib.request.build_opener(_Redirection(secure, error))
        request = urllib.request.Request(address, headers=dict(headers or {}))
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer, atomic_path(target) as temporary:
            with open(temporary, "wb") as file:
                # Not `read`, which a server that sends a byte at a time would keep waiting for a whole block.
                while block := answer.read1(_BLOCK):
                    size += len(block)
                    if time.monotonic() > end:
                        raise error(f"{address} took longer than the {seconds:,.0f} seconds allowed; {advice}")
                    if most is not None and size > most:
                        raise error(f"{address} sends more than the {most:,} bytes allowed; {advice}")
                    digest.update(block)
                    file.write(block)
            # Without a checksum: what an answer that names its length still owes.
            if sha256 is None and answer.length:
                raise error(f"{address} broke off after {size:,} bytes, {answer.length:,} before its end; {advice}")
            if sha256 is not None and digest.hexdigest() != sha256:
                raise error(f"what {address} sent has another checksum (interrupted or altered); {advice}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as fault:
        if isinstance(fault, UnfoolError):
            raise
        reason = getattr(fault, "reason", None) or fault
        # ValueError: a redirection to what is no address.
        raise error(f"cannot fetch {address} ({str(reason)[:200]}); {advice}") from fault
    return target
