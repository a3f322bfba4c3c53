"""Serve the page: on this machine alone unless told otherwise, without anything from outside."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from unfool.core.errors import OutputError, SpecError
from unfool.playground.pictures import MOST_UPLOADED
from unfool.playground.play import Playground

LOOPBACK = "127.0.0.1"
PORT = 7860
_PORTS = 50
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""What the page may load: nothing that does not come from its own server."""
_ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def check_installed() -> None:
    """SpecError, with what to install, where gradio is missing."""
    if importlib.util.find_spec("gradio") is None:
        raise SpecError("unfool play needs gradio, which is not installed; pip install 'unfool[playground]'")


def chosen_port(host: str, port: int | None) -> int:
    """The port to listen on: the given one; any free one for 0; by default 7860, or the next that is free.

    Raises SpecError for a number that is no port, OutputError where it is in use, and where the host is not this
    machine's.
    """
    if port is not None and not 0 <= port <= 65535:
        raise SpecError(f"port {port} is not allowed; give 0 to 65535")
    wanted = [port] if port is not None else [*range(PORT, PORT + _PORTS), 0]
    for number in wanted:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0]
        except (OSError, ValueError) as error:  # ValueError: what no host can be called, such as a..b
            raise SpecError(f"host {host[:80]!r} is not known ({error}); give 127.0.0.1, or 0.0.0.0 for all") from error
        with socket.socket(family[0]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(family[4])
                return probe.getsockname()[1]
    raise OutputError(
        f"cannot listen on {host}, port {port}: it is in use or not allowed; give --port 0 for a free one"
    )


@contextlib.contextmanager
def serving(play: Playground, host: str = LOOPBACK, port: int | None = None) -> Iterator[str]:
    """Serve the page while inside; gives its address.

    Uploads lie in a folder that goes away with the server. Raises as `check_installed` and `chosen_port` do.
    """
    check_installed()
    number = chosen_port(host, port)
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, "GRADIO_TEMP_DIR")}
    with tempfile.TemporaryDirectory(prefix="unfool-play-") as folder:
        os.environ.update(_ENVIRONMENT, GRADIO_TEMP_DIR=folder)
        blocks: Any = None
        try:
            blocks = _launched(play, host, number)
            yield str(blocks.local_url)
        finally:
            if blocks is not None:
                blocks.close(verbose=False)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _launched(play: Playground, host: str, port: int) -> Any:
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from unfool.playground.page import built, head_html
    from unfool.playground.theme import theme
    from unfool.playground.view import style

    blocks = built(play)
    middleware = [Middleware(Headers)]
    if host in (LOOPBACK, "localhost", "::1"):
        # A page elsewhere whose name leads to this machine is not answered.
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]))
    try:
        blocks.queue(default_concurrency_limit=4, max_size=64).launch(
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inline=False,
            server_name=host,
            server_port=port,
            max_file_size=MOST_UPLOADED,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            state_session_capacity=100,
            theme=theme(),
            head=head_html(style()),
            app_kwargs={"middleware": middleware},
        )
    except OSError as error:
        raise OutputError(f"cannot listen on {host}, port {port}: {error}; give --port 0 for a free one") from error
    return blocks


class Headers:
    """Adds to every answer that the page loads nothing from elsewhere, and stands in no other page."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        await self.app(scope, receive, answer if scope["type"] == "http" else send)
