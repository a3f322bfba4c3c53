# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Weights files: safetensors with the architecture in the header, written whole or not at all, read with suspicion."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unfool.core.borders.checksum import checksum
from unfool.core.errors import OutputError, SpecError, WeightsError
from unfool.core.files import atomic_path
from unfool.models.header import CHECKSUM, DTYPES, MAX_HEADER_BYTES, SCHEMA_VERSION, Header, read_header
from unfool.models.network import Network
from unfool.models.zoo.located import weights_file

FOREIGN = "foreign"
"""Name of the trunk of a classifier whose code is not unfool's."""

_NORMALISATION = ("mean", "std")
"""Buffers that are the normalisation, which the architecture names."""
_SPELLED = {dtype: word for word, dtype in DTYPES.items()}


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinite values; WeightsError names the first tensor that holds some."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(
                f"{where}: tensor {name!r} holds NaN or infinite values; go back to an earlier checkpoint"
            )


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and JSON-able metadata to a safetensors file, whole or not at all.

    Any device and layout; written contiguous. Raises WeightsError for NaN or infinite values and for metadata that
    JSON cannot hold or that `read_header` would refuse, OutputError if the file cannot be written.
    """
    check_finite(tensors, f"cannot write {path}")
    for name, tensor in tensors.items():
        if tensor.dtype not in _SPELLED:
            raise WeightsError(f"cannot write {path}: tensor {name!r} is {tensor.dtype}; allowed: {', '.join(DTYPES)}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    seen: set[int] = set()
    for name, tensor in plain.items():
        # The format has no shared storage: tied tensors and views of one buffer are written out each.
        storage = tensor.untyped_storage().data_ptr()
        plain[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    for key in ("schema_version", CHECKSUM):
        if key in (metadata or {}):
            raise WeightsError(f"cannot write {path}: metadata key {key!r} is unfool's own; choose another")
    try:
        texts = {key: json.dumps(value, allow_nan=False) for key, value in (metadata or {}).items()}
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"cannot write {path}: metadata that JSON cannot hold ({error}); give plain values"
        ) from error
    # A quarter of the limit is left to the names and shapes of the tensors.
    if sum(map(len, texts.values())) > MAX_HEADER_BYTES * 3 // 4:
        raise WeightsError(
            f"cannot write {path}: metadata are too long for a header; keep long logs in a file of their own"
        )
    texts["schema_version"] = str(SCHEMA_VERSION)
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, {**texts, CHECKSUM: checksum(texts, plain)})
        except SafetensorError as error:
            raise OutputError(f"cannot write {path}: {error}; free some space or choose another folder") from error


def load_tensors(path: str | Path, *, foreign: bool = False) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The tensors (CPU, memory of their own) and the decoded metadata of a file that `save_tensors` wrote.

    ``foreign``: any program may have written the safetensors file; its metadata are then left out. Raises WeightsError
    for every fault that `read_header` finds, for a checksum that does not fit, and for NaN or infinite values.
    """
    header = read_header(path, foreign=foreign)
    return _load(path, header), header.metadata


def _load(path: str | Path, header: Header) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as opened, safe_open(path_in_utf8(path, opened.fileno()), framework="pt") as file:
            # Cloned, because a mapped tensor dies with the file when another process shortens it.
            tensors = {name: file.get_tensor(name).clone() for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read {path}: {error}; save it again with unfool") from error
    check_finite(tensors, str(path))
    if header.checksum is not None and header.checksum != checksum(header.texts, tensors):
        raise WeightsError(
            f"{path} was changed after it was written: its checksum does not fit; copy or train it again"
        )
    return tensors


def path_in_utf8(path: str | Path, descriptor: int) -> str:
    """The path of an open file, spelled otherwise where it is no UTF-8, which is all that safetensors opens."""
    try:
        return str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        return f"/dev/fd/{descriptor}"


def save_network(
    network: Network, path: str | Path, metadata: Mapping[str, Any] | None = None, *, half: bool = False
) -> None:
    """Write a network's weights and architecture to a safetensors file, whole or not at all.

    Args:
        network: The network; its mode and device do not matter.
        path: The file; its folder is created.
        metadata: What else belongs to the weights, as JSON takes it.
        half: Round weights to half precision, for a file of half the size; read again they are float32.

    Raises:
        WeightsError: NaN or infinite weights, in half precision too, weights that are not float32, or metadata that
            JSON cannot hold.
        OutputError: A file that cannot be written.
        SpecError: Something that is no Network, or a head that `build_head` did not build.

    Example:
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {})
        >>> save_network(network, "weights.safetensors", {"note": "untrained"})
        >>> load_network("weights.safetensors").trunk.spec == network.trunk.spec
        True
    """
    if not isinstance(network, Network):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise SpecError(
            f"a {type(network).__name__} is no network of unfool's own; write its state dict with safetensors, which "
            "--model with --weights reads"
        )
    if "architecture" in (metadata or {}):
        raise WeightsError(f"cannot write {path}: metadata key 'architecture' is unfool's own; choose another")
    state = network.state_dict()
    if network.trunk.spec.name != FOREIGN:  # Other libraries' code decides by itself what it computes in.
        _check_float32(path, state)
    tensors = {name: _halved(name, tensor) if half else tensor for name, tensor in state.items()}
    save_tensors(path, tensors, {"architecture": network.architecture, **(metadata or {})})


def _check_float32(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse floats of another precision, which `load_network` would not read; WeightsError names the first."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise WeightsError(
                f"cannot write {path}: tensor {name!r} is {tensor.dtype}, and networks are stored in float32; call "
                "network.float() first, and give half=True for a file in half precision"
            )


def _halved(name: str, tensor: Tensor) -> Tensor:
    """A float tensor in half precision; the normalisation stays exact, since the architecture names it."""
    return tensor.half() if tensor.dtype == torch.float32 and name not in _NORMALISATION else tensor


def load_network(path: str | Path) -> Network:
    """Read a network from a weights file that `save_network` wrote; no code in the file is ever run.

    Args:
        path: The .safetensors file, or ``zoo:NAME``.

    Returns:
        The network, on the CPU and in eval mode, bit for bit as it was saved; weights in half precision are widened.

    Raises:
        WeightsError: A file that is missing, malformed, a pickle or of a newer unfool; an architecture that does not
            fit the tensors, the first of which is named; NaN weights. No memory is taken before all but the values
            has been checked.

    Example:
        >>> save_network(Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {}), "weights.safetensors")
        >>> load_network("weights.safetensors").training
        False
    """
    path = weights_file(path)
    header = read_header(path)
    architecture = _architecture(path, header)
    try:
        network = Network.empty(architecture)
    except SpecError as error:
        raise WeightsError(f"{path} has an architecture that cannot be built: {error}") from error
    network.load_state_dict(_fitting(path, header, network), strict=True, assign=True)
    return network.eval()


def load_into(network: Network, path: str | Path) -> None:
    """Copy a file's weights into a network of the same architecture; on any error the network is unchanged.

    Raises WeightsError as `load_network` does; for another architecture it names the first settings that differ.
    """
    path = weights_file(path)
    header = read_header(path)
    differing = _differences("", _architecture(path, header), network.architecture)
    if differing:
        raise WeightsError(
            f"{path} holds another architecture: {first_of(differing)}; build the network that it describes"
        )
    network.load_state_dict(_fitting(path, header, network), strict=True)


def _architecture(path: str | Path, header: Header) -> dict[str, object]:
    architecture = header.metadata.get("architecture")
    if not isinstance(architecture, dict):
        raise WeightsError(
            f"{path} holds tensors but no architecture; save networks with save_network, "
            "or give the code that they belong to: --model FILE.py:NAME --weights FILE"
        )
    trunk = architecture.get("trunk")
    if isinstance(trunk, dict) and trunk.get("name") == FOREIGN:
        raise WeightsError(
            f"{path} belongs to a classifier of another library, whose code is not in it; give that too, with --model "
            "FILE.py:NAME on the command line or model= in Python"
        )
    heads = architecture.get("heads")
    # Building costs memory per head; an honest file has at least one tensor for each.
    if isinstance(heads, dict) and len(heads) > len(header.tensors):
        raise WeightsError(f"{path} names {len(heads)} heads but holds {len(header.tensors)} tensors; save it again")
    return architecture


def _fitting(path: str | Path, header: Header, network: Network) -> dict[str, Tensor]:
    """The file's tensors, once their names, shapes and dtypes are known to be the network's, and its normalisation."""
    wanted = {name: (_SPELLED[t.dtype], tuple(t.shape)) for name, t in network.state_dict().items()}
    missing = [name for name in wanted if name not in header.tensors]
    if missing:
        raise WeightsError(
            f"{path} lacks {len(missing)} tensors of its architecture: {first_of(missing)}; save it again"
        )
    excess = [name[:80] for name in header.tensors if name not in wanted]
    if excess:
        raise WeightsError(f"{path} holds {len(excess)} tensors that its architecture lacks: {first_of(excess)}")
    for name, (dtype, shape) in wanted.items():
        halved = dtype == "F32" and name not in _NORMALISATION and header.tensors[name] == ("F16", shape)
        if not halved and header.tensors[name] != (dtype, shape):
            actual = " ".join(map(str, header.tensors[name]))
            raise WeightsError(f"{path}: tensor {name!r} is {actual}; its architecture has {dtype} {shape}")
    tensors = _load(path, header)
    for name in _NORMALISATION:
        if not torch.equal(tensors[name], getattr(network, name).cpu()):
            raise WeightsError(
                f"{path}: tensor {name!r} contradicts the normalisation in its architecture; save it again"
            )
    widened = [name for name, tensor in tensors.items() if tensor.dtype == torch.float16 and wanted[name][0] == "F32"]
    return {**tensors, **{name: tensors[name].float() for name in widened}}


def _differences(key: str, file: Any, network: Any) -> list[str]:
    """Every setting, by its dotted path, that two architectures do not share."""
    if isinstance(file, dict) and isinstance(network, dict):
        keys = [*network, *(name for name in file if name not in network)]
        nested = (
            _differences(f"{key}.{name}" if key else name[:80], file.get(name), network.get(name)) for name in keys
        )
        return [line for lines in nested for line in lines]
    same = file == network and isinstance(file, bool) == isinstance(network, bool)
    return [] if same else [f"{key} is {reprlib.repr(file)} in the file, {reprlib.repr(network)} in the network"]


def first_of(names: Iterable[str]) -> str:
    """The first three, for a message of one line."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
