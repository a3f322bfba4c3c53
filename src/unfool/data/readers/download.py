"""Fetching a file over https: checksummed while it arrives, whole or absent, never over http."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from unfool.core.errors import DataError
from unfool.core.files import atomic_path

TIMEOUT_SECONDS = 10.0
"""How long the other side may be silent."""
TOTAL_SECONDS = 4 * 3600.0
"""How long a whole download may take."""
_BLOCK = 1 << 20


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https://"):
            raise DataError(f"{req.full_url} redirects to {newurl[:200]!r}, which is not https; fetch the file by hand")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(address: str, target: Path, sha256: str, seconds: float = TOTAL_SECONDS) -> Path:
    """Fetch ``address`` to ``target`` in at most ``seconds``.

    Raises DataError if it cannot be reached, breaks off, takes too long or has another checksum.
    """
    if not address.startswith("https://"):
        raise DataError(f"{address} is not an https address; only https is fetched")
    by_hand = f"fetch it by hand and put it into the data directory (UNFOOL_DATA_DIR, --data-dir) as {target.name}"
    digest = hashlib.sha256()
    end = time.monotonic() + seconds
    try:
        opener = urllib.request.build_opener(_HttpsOnly)
        with opener.open(address, timeout=TIMEOUT_SECONDS) as answer, atomic_path(target) as temporary:
            with open(temporary, "wb") as file:
                # Not `read`, which a server that sends a byte at a time would keep waiting for a whole block.
                while block := answer.read1(_BLOCK):
                    if time.monotonic() > end:
                        raise DataError(f"{address} took longer than the {seconds:,.0f} seconds allowed; {by_hand}")
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != sha256:
                raise DataError(f"what {address} sent has another checksum (interrupted or altered); {by_hand}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        # ValueError: a redirection to what is no address.
        raise DataError(f"cannot fetch {address} ({str(reason)[:200]}); {by_hand}") from error
    return target
