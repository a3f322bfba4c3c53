"""``unfool doctor``: what this machine offers, and which data sets can be had on it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options.shared import DataDir, Json


@dataclass(frozen=True, kw_only=True)
class DoctorCommand:
    """Show the device, threads, precision and versions, the cache folder, and which data sets are reachable.

    Nothing is downloaded or changed; the hub is asked once whether it answers. With --data the splits of that set are
    compared instead: it reads all of its images, and fetches a set that is not here.
    """

    data: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME",
            help="Count the images of this set that are equal in content, within each split and across splits.",
            help_behavior_hint="(default: none)",
        ),
    ] = None
    data_dir: DataDir = None
    json: Json = False

    examples: ClassVar[str] = """
  unfool doctor
  unfool doctor --data-dir ../data
  unfool doctor --json
  unfool doctor --data folder:pets
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_lines
        from unfool.data.catalog import catalog

        if self.data is not None:
            self._compare(self.data)
            return
        sets = catalog(self.data_dir)
        machine = examine()
        if self.json:
            print_json({**asdict(machine), "data": [asdict(entry) for entry in sets]})
            return
        lines = [*machine.lines(), "", "data sets"]
        for entry in sets:
            mark = "yes" if entry.reachable else "no "
            columns = f", labels {', '.join(entry.label_columns)}" if entry.label_columns else ""
            lines.append(f"  {mark}  {entry.name:<16} {entry.where}{columns}")
        print_lines([*lines, *(["", "advice"] if machine.advice else []), *(f"  {text}" for text in machine.advice)])

    def _compare(self, name: str) -> None:
        """Print how many images the splits of a set share."""
        from unfool.cli.printing import print_json, print_lines
        from unfool.data.catalog import split_sources
        from unfool.data.folders import data_folder
        from unfool.data.readers.shared_images import compare_splits

        splits = compare_splits(split_sources(name, data_folder(self.data_dir)))
        if self.json:
            print_json({"data": name, "splits": [asdict(split) for split in splits]})
            return
        lines = [f"{name}: images of equal content"]
        for each in splits:
            across = "" if each.split == "train" else f", {each.in_train:,} of them in train too"
            lines.append(f"  {each.split:<12} {each.images:,} images, {each.repeated:,} repeated{across}")
        print_lines(lines)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine offers; ``advice`` holds what would make it faster."""

    device: str
    gpus: list[str]
    processor: str
    cores: int
    threads: int
    omp_wait_policy: str
    bf16: dict[str, bool]
    versions: dict[str, str]
    cache: str
    advice: list[str]

    def lines(self) -> list[str]:
        """A line for each property but the advice."""
        values = {name: value for name, value in asdict(self).items() if name != "advice"}
        return [f"{name.replace('_', ' '):<16} {_words(value)}" for name, value in values.items()]


def examine() -> Machine:
    """Look at the processor, GPUs, threads, precision and versions."""
    import torch

    from unfool.evaluation.results.versions import versions

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    capabilities = torch.cpu.get_capabilities()
    fast_bf16 = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    advice = []
    if policy.upper() != "PASSIVE":
        advice.append("set OMP_WAIT_POLICY=PASSIVE: threads that spin while they wait slow a busy machine down")
    if threads > cores:
        advice.append(f"set OMP_NUM_THREADS={cores}: {threads} threads share {cores} cores")
    if not gpus and not fast_bf16:
        advice.append("keep --precision fp32: this processor has no instructions for bf16")
    return Machine(
        device="cuda" if gpus else "cpu",
        gpus=gpus,
        processor=str(capabilities.get("cpu_name") or capabilities.get("architecture") or "unknown"),
        cores=cores,
        threads=threads,
        omp_wait_policy=policy,
        bf16={"cpu": fast_bf16, "cuda": bool(gpus) and torch.cuda.is_bf16_supported()},
        versions=versions(),
        cache=_cache(),
        advice=advice,
    )


def _cache() -> str:
    """The folder of image stores and downloads."""
    from unfool.core.errors import DataError
    from unfool.data.folders import cache_folder

    try:
        return str(cache_folder())
    except DataError:
        return "none, as this user has no home folder; set UNFOOL_CACHE_DIR"


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
