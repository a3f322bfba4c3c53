"""``unfool play``: a playground in the browser, and a static page of it that needs no server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Device, ImageOptions, Json, ModelOptions

if TYPE_CHECKING:
    from unfool.playground import Playground, PlaygroundSystem


@dataclass(frozen=True, kw_only=True)
class PictureOptions(ImageOptions):
    """The pictures of SYSTEM or --model."""


@dataclass(frozen=True, kw_only=True)
class PlayCommand:
    """Open a playground in the browser: attack a picture, see what the network makes of it, and move it back.

    It offers the networks that come with the package, and before them SYSTEM or --model. Only this machine can reach
    it, nothing is fetched from elsewhere, and uploads go when it ends: press Ctrl-C. Needs pip install
    'unfool[playground]'; --static does not.
    """

    host: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everyone in the network play, whom nothing then keeps out."""
    port: Annotated[
        int | None, tyro.conf.arg(metavar="N", help_behavior_hint="(default: 7860, or the next that is free)")
    ] = None
    """Port to listen on; 0 takes any that is free."""
    check: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Start, load and attack a picture once through the server's own interface, print the answer, and stop."""
    static: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write a page (.html) with attacks on digits that are computed now, which needs no server, and stop."""
    device: Device = "auto"
    json: Json = False
    model: ModelOptions = field(default_factory=ModelOptions)
    data: PictureOptions = field(default_factory=PictureOptions)

    examples: ClassVar[str] = """
  unfool play
  unfool play runs/digits --port 0
  unfool play --model mine.py:build --weights w.safetensors --data folder:pets --size 64
  unfool play --check
  unfool play --static digits.html
"""

    def run(self) -> None:
        from unfool.core.errors import SpecError

        if self.check and self.static is not None:
            raise SpecError("--check and --static were given together; give one of them")
        if self.static is not None:
            self._write_static(self.static)
        elif self.check:
            self._check()
        else:
            self._serve()

    def _serve(self) -> None:
        import signal
        import threading

        from unfool.cli.printing import print_json, print_lines
        from unfool.playground.server import serving

        with serving(self._playground(), self.host, self.port) as url:
            if self.json:
                print_json({"url": url})
            else:
                print_lines([f"playing at {url}", "press Ctrl-C to stop"])
            stopped = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: stopped.set())
            with contextlib.suppress(KeyboardInterrupt):
                stopped.wait()

    def _check(self) -> None:
        from unfool.cli.printing import print_json, print_lines
        from unfool.playground.check import ask_once
        from unfool.playground.server import serving

        with serving(self._playground(), self.host, 0 if self.port is None else self.port) as url:
            answer = ask_once(url)
        if self.json:
            print_json(answer.to_json())
        else:
            print_lines([answer.said, f"{url} answered; {answer.systems} networks, {answer.pictures} pictures"])

    def _write_static(self, path: Path) -> None:
        from unfool.cli.printing import check_page, print_json, print_lines, stderr
        from unfool.core.progress_display import progress_bar
        from unfool.playground.static_page import write_static_page

        check_page(path)
        with progress_bar(stderr(), "static page") as progress:
            play = self._playground()
            size = write_static_page(path, play, progress=progress)
        if self.json:
            print_json({"page": str(path), "bytes": size})
        else:
            print_lines([f"page: {path} ({size / 1000:.0f} kB)"])

    def _playground(self) -> Playground:
        from unfool.models import zoo
        from unfool.playground import Playground

        openers: dict[str, Callable[[], PlaygroundSystem]] = {}
        named = self.model.system or self.model.model
        if named is not None:
            openers[str(named)] = partial(self._opened, self.model, self.data)
        # Digits first: their images come with the package.
        for name in sorted(zoo.names(), key=lambda name: not name.startswith("digits")):
            system = f"zoo:{name}"
            openers.setdefault(
                system,
                partial(self._opened, ModelOptions(system=Path(system)), PictureOptions(data_dir=self.data.data_dir)),
            )
        return Playground(openers)

    def _opened(self, model: ModelOptions, data: PictureOptions) -> PlaygroundSystem:
        from unfool.cli.parsing.playground import playground_system

        return playground_system(model, data, self.device)
