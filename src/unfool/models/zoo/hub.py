"""Runs on the Hugging Face hub: a few files by their fixed names, bounded in size and time, and nothing that can run.

`huggingface_hub`'s ``PyTorchModelHubMixin`` does not fit: it writes weights without their checksum and architecture,
rebuilds a network from a class and its arguments, which ours are not made of, and its downloads have no bounds. What is
used of the library is its account of a repository, its addresses and its uploads.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from unfool.core.errors import OutputError, SpecError, WeightsError
from unfool.data.folders import cache_folder
from unfool.data.readers.download import fetch
from unfool.models.zoo.catalog import WEIGHTS
from unfool.models.zoo.model_card import CARD, MOST_WEIGHTS, RESULTS

PREFIX = "hf"
FILES = {
    "config.yaml": 1 << 18,
    WEIGHTS: MOST_WEIGHTS,
    CARD: 1 << 20,
    **dict.fromkeys(RESULTS.values(), 1 << 25),
    "README.md": 1 << 20,
}
"""The files of a run that are exchanged, and the most bytes of each."""
NEEDED = ("config.yaml", WEIGHTS)
SECONDS = 600.0
"""How long all of a repository's files may take to arrive."""
_ANSWER_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def check_name(name: str) -> str:
    """The name of a repository, OWNER/NAME; SpecError for what is none."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise SpecError(f"{name[:80]!r} is no repository of the hub; write OWNER/NAME")
    return name


def download(name: str) -> Path:
    """The folder of a run on the hub, fetched once for each of its commits.

    Files of other names are left where they are. Where the hub cannot be reached, what was fetched last is taken.
    Raises SpecError for a name that is none, WeightsError for a repository that cannot be had, that holds no run, or
    whose files are larger or come slower than allowed.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    check_name(name)
    commits = cache_folder() / "models" / name.replace("/", "--")
    try:
        info = _look(name)
    except _UnreachableError:
        if (kept := _latest(commits)) is not None:
            return kept
        raise
    sizes: dict[str, Any] = {each.rfilename: each.size for each in info.siblings or []}
    missing = [file for file in NEEDED if file not in sizes]
    if missing:
        raise WeightsError(
            f"hf:{name} holds no run of unfool (no {missing[0]}); a model of transformers is given as --model hf:{name}"
        )
    chosen = [file for file in FILES if file in sizes]
    for file in chosen:
        if isinstance(sizes[file], int) and sizes[file] > FILES[file]:
            raise WeightsError(f"hf:{name}: {file} has {sizes[file]:,} bytes, more than the {FILES[file]:,} allowed")
    commit = info.sha if re.fullmatch(r"[0-9a-f]{7,64}", str(info.sha)) else None
    if commit is None:
        raise WeightsError(f"hf:{name} names no commit; the hub's answer is not understood")
    folder = commits / commit
    end = time.monotonic() + SECONDS
    # The weights last: a folder that has them is whole.
    for file in sorted(chosen, key=lambda file: file == WEIGHTS):
        if not (folder / file).is_file():
            fetch(
                f"{constants.ENDPOINT}/{name}/resolve/{commit}/{file}",
                folder / file,
                seconds=max(1.0, end - time.monotonic()),
                most=FILES[file],
                headers=build_hf_headers(),
                secure=_secure(),
                advice="try again, or fetch the repository by hand and give its folder",
                error=WeightsError,
            )
    return folder


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Write the files of a run's folder to a repository, which is created where it is missing; its address.

    Raises SpecError for a name that is none, OutputError where the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi, constants

    check_name(name)
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message="Add it")
    except Exception as error:  # whatever the HTTP client of the day raises
        said = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise OutputError(
            f"cannot write hf:{name} ({said}); log in with `hf auth login`, or write a folder with --dir"
        ) from error
    return f"{constants.ENDPOINT}/{name}"


def _look(name: str) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return HfApi().model_info(name, files_metadata=True, timeout=_ANSWER_SECONDS)
    except GatedRepoError as error:
        raise WeightsError(f"hf:{name} is gated; accept its terms on its page, then `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(f"the hub has no public model {name}; check the name, or `hf auth login`") from error
    except Exception as error:  # whatever the HTTP client of the day raises
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise _UnreachableError(f"the hub cannot be asked for {name} ({said}); give the network's folder") from error


class _UnreachableError(WeightsError):
    """The hub does not answer."""


def _latest(commits: Path) -> Path | None:
    """The folder that was fetched last, of those that are whole; None for none."""
    whole = [path for path in commits.glob(f"*/{WEIGHTS}") if path.is_file()]
    return max(whole, key=lambda path: path.stat().st_mtime).parent if whole else None


def _secure() -> bool:
    """Whether only https is fetched: the user may have named a hub of their own that has none (HF_ENDPOINT)."""
    from huggingface_hub import constants

    return not constants.ENDPOINT.startswith("http://")
