"""A file that was read through a mapping does not stay this process's memory, and reads the same again."""

from pathlib import Path

import pytest
import torch

from unfool.core.borders import mapped
from unfool.core.borders.mapped import MappedPages
from unfool.data.pixels import DecodedPixels

SIDE, COUNT = 64, 800


def mapped_bytes():
    """Bytes of files that this process has in memory."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not say what a process has in memory")
    return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssFile"))


def test_pages_are_let_go_and_read_the_same_again(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "KEPT_BYTES", 1 << 20)
    pixels = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
    (tmp_path / "pixels.bin").write_bytes(pixels.numpy().tobytes())
    file = torch.from_file(str(tmp_path / "pixels.bin"), shared=False, size=pixels.numel(), dtype=torch.uint8)
    table = DecodedPixels(file.view(pixels.shape), MappedPages(file.data_ptr(), file.nbytes))
    assert torch.equal(table.take(torch.arange(2)), pixels[:2])  # the libraries' own pages
    assert file[:99].sum() > 0
    before = mapped_bytes()
    for _ in range(2):
        for rows in torch.arange(COUNT).split(16):
            assert torch.equal(table.take(rows), pixels[rows])
            assert mapped_bytes() - before < 3 << 20
    file.sum()
    assert mapped_bytes() - before > 5 << 20
