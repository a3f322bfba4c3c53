"""A small hub on this machine, which speaks the few addresses that reading and writing a model needs."""

import base64
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``files`` of its one repository by name; ``sizes`` lie, ``endless`` never end, ``short`` break off."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        self.endless: set[str] = set()
        self.short: set[str] = set()
        self.elsewhere: dict[str, str] = {}
        self.commit = COMMIT
        self.exists = True
        self.private: bool | None = None
        self.requests: list[tuple[str, str, str | None]] = []
        self.address = ""

    def sibling(self, name):
        return {"rfilename": name, "size": self.sizes.get(name, len(self.files.get(name, b"")))}


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, value, code=200):
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", hub.commit)
            if code == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(content)

        def content(self):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def do_GET(self):
            hub.requests.append(("GET", self.path, self.headers.get("Authorization")))
            path = self.path.partition("?")[0]
            if not hub.exists:
                return self.answer({"error": "Repository not found"}, 404)
            if path.startswith("/api/models/"):
                names = [*hub.files, *hub.sizes.keys() - hub.files.keys()]
                siblings = [hub.sibling(name) for name in names]
                return self.answer({"id": "me/net", "modelId": "me/net", "sha": hub.commit, "siblings": siblings})
            name = path.partition(f"/resolve/{hub.commit}/")[2]
            if name in hub.elsewhere:
                self.send_response(302)
                self.send_header("Location", hub.elsewhere[name])
                self.send_header("Content-Length", "0")
                return self.end_headers()
            if name in hub.short:
                self.send_response(200)
                self.send_header("Content-Length", str(len(hub.files[name])))
                self.end_headers()
                self.wfile.write(hub.files[name][:10])
                self.close_connection = True
                return None
            if name in hub.endless:
                self.send_response(200)
                self.end_headers()
                while True:
                    try:
                        self.wfile.write(b"x" * 65536)
                    except OSError:
                        return None
                    time.sleep(0.001)
            return self.answer(hub.files[name]) if name in hub.files else self.answer({"error": "no"}, 404)

        def do_POST(self):
            hub.requests.append(("POST", self.path, self.headers.get("Authorization")))
            content = self.content()
            if self.path == "/api/repos/create":
                asked_for = json.loads(content)
                hub.private = asked_for.get("private") or asked_for.get("visibility") == "private"
                return self.answer({"url": f"{hub.address}/me/net", "name": "me/net", "id": "1"})
            if self.path.startswith("/api/validate-yaml"):
                return self.answer({"errors": [], "warnings": []})
            if "/preupload/" in self.path:
                listed = json.loads(content)["files"]
                modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in listed]
                return self.answer({"files": modes})
            if "/commit/" in self.path:
                for line in content.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                url = f"{hub.address}/me/net/commit/{oid}"
                return self.answer({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
            return self.answer({"error": "unknown"}, 400)

    return Handler


@contextmanager
def serving():
    """A hub at ``address`` while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
