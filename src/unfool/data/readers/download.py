"""Fetching a file over https: checksummed while it arrives, whole or absent, never over http."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from unfool.core.errors import DataError
from unfool.core.files import atomic_path

TIMEOUT_SECONDS = 10.0
_BLOCK = 1 << 20


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirection only to https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith("https://"):
            raise DataError(f"{req.full_url} redirects to {newurl}, which is not https; fetch the file by hand")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(address: str, target: Path, sha256: str) -> Path:
    """Fetch ``address`` to ``target``; DataError if it cannot be reached, breaks off, or has another checksum."""
    if not address.startswith("https://"):
        raise DataError(f"{address} is not an https address; only https is fetched")
    by_hand = f"fetch it by hand and put it into the data directory (UNFOOL_DATA_DIR, --data-dir) as {target.name}"
    digest = hashlib.sha256()
    try:
        opener = urllib.request.build_opener(_HttpsOnly)
        with opener.open(address, timeout=TIMEOUT_SECONDS) as answer, atomic_path(target) as temporary:
            with open(temporary, "wb") as file:
                while block := answer.read(_BLOCK):
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != sha256:
                raise DataError(f"what {address} sent has another checksum (interrupted or altered); {by_hand}")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot fetch {address} ({reason}); {by_hand}") from error
    return target
