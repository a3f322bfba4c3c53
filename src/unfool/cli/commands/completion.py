"""``unfool completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True, kw_only=True)
class CompletionCommand:
    """Print a script that completes unfool's commands, options and choices when Tab is pressed.

    bash: put it into ~/.local/share/bash-completion/completions/unfool; zsh: into a file _unfool of a folder in
    $fpath; fish: into ~/.config/fish/completions/unfool.fish.
    """

    shell: Annotated[tyro.conf.Positional[Shell], tyro.conf.arg(help_behavior_hint="")]
    """The shell that reads the script."""

    examples: ClassVar[str] = """
  unfool completion bash > ~/.local/share/bash-completion/completions/unfool
  unfool completion zsh > ~/.zfunc/_unfool
  unfool completion fish > ~/.config/fish/completions/unfool.fish
"""

    def run(self) -> None:
        from unfool.cli.completion_script import completion_script

        print(completion_script(self.shell))
