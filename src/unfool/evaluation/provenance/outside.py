"""What the code of a pass reads from outside the system: files, programs, the network, the command line.

No identity holds what lies there, and it may change from one pass to the next.
"""

from __future__ import annotations

import builtins
import dis
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfool.evaluation.provenance.origin import library_of, library_of_function, module_of
from unfool.evaluation.provenance.python_code import codes_of, names_of

_READERS = """
io.open os.open os.popen os.system os.listdir os.scandir mmap.mmap subprocess.run subprocess.Popen
subprocess.check_output subprocess.getoutput socket.socket socket.create_connection urllib.request.urlopen
urllib.request.urlretrieve http.client.HTTPConnection http.client.HTTPSConnection requests.get requests.post
httpx.get httpx.post numpy.load numpy.fromfile numpy.loadtxt numpy.genfromtxt numpy.memmap pickle.load json.load
joblib.load torch.load torch.from_file torch.jit.load torch.hub.load torch.hub.load_state_dict_from_url
torch.export.load safetensors.safe_open safetensors.torch.load_file safetensors.numpy.load_file
huggingface_hub.hf_hub_download PIL.Image.open cv2.imread imageio.imread torchvision.io.read_image
torchvision.io.read_file pandas.read_csv pandas.read_parquet pandas.read_json pandas.read_pickle scipy.io.loadmat
h5py.File
""".split()  # noqa: SIM905
"""Functions and classes through which code reads what lies outside, by their places."""
_BY_NAME = {"read_text": "files", "read_bytes": "files", "argv": "the command line", "stdin": "the standard input",
            "__doc__": "docstrings", "__annotations__": "annotations"}  # fmt: skip
"""Names that say so whatever they belong to."""
_PLAIN = (bool, int, float, complex, str, bytes, Tensor, np.ndarray, np.generic)
_OPERATORS = frozenset({"aten", "prim", "prims", "quantized", "torchvision"})
"""Operators of PyTorch's own, which their names identify."""


def outside_reads(function: types.FunctionType) -> list[str]:
    """What a function of the user's that a pass runs reads from outside, in words; empty where nothing is known."""
    if library_of(module_of(function)) is not None:
        return []
    names = set(names_of(function.__code__))
    said = {_BY_NAME[name] for name in names & _BY_NAME.keys()}
    readers = {id(reader): place for place in _READERS if (reader := _placed(place)) is not None}
    own = function.__globals__
    values = [own.get(name, vars(builtins).get(name)) for name in names]
    values += [vars(module).get(name) for module in _modules(function, names) for name in names]
    said |= {f"files or other programs ({readers[id(value)]})" for value in values if id(value) in readers}
    if "ops" in names and (registered := _registered(names)):
        said.add(f"an operator that somebody registered ({registered[0]})")
    return sorted(said)


def replaced_around(function: types.FunctionType) -> list[tuple[str, Any]]:
    """What a function mentions of builtins and of libraries' modules that may have been put there: functions of the
    user's among the builtins, and plain values of modules."""
    if library_of(module_of(function)) is not None:
        return []
    names = sorted(set(names_of(function.__code__)))
    built_in = [(name, vars(builtins).get(name)) for name in names if name not in function.__globals__]
    own = [(f"builtin {name}", item) for name, item in built_in
           if isinstance(item, types.FunctionType) and library_of_function(item) is None]  # fmt: skip
    for module in _modules(function, set(names)):
        held = [(name, vars(module).get(name)) for name in names if not name.startswith("__")]
        own += [(f"{module.__name__}.{name}", item) for name, item in held if isinstance(item, _PLAIN)]
    return own


def _modules(function: types.FunctionType, names: set[str]) -> list[types.ModuleType]:
    """Modules of libraries that a function mentions or imports, and those inside them that it mentions."""
    imported = {
        str(step.argval)
        for code in codes_of(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname == "IMPORT_NAME"
    }
    waiting = [function.__globals__.get(name) for name in names] + [sys.modules.get(name) for name in imported]
    modules: dict[int, types.ModuleType] = {}
    while waiting:
        item = waiting.pop()
        if isinstance(item, types.ModuleType) and id(item) not in modules and library_of(item.__name__) is not None:
            modules[id(item)] = item
            waiting += [vars(item).get(name) for name in names]
    return sorted(modules.values(), key=lambda module: module.__name__)


def _placed(place: str) -> Any:
    """What lies at a place of a module that is imported already; None for others, which nobody can have called."""
    module, _, name = place.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _registered(names: set[str]) -> list[str]:
    """Operators of other libraries than PyTorch, both parts of whose name a function mentions."""
    pairs: Iterator[list[str]] = (
        [space, name.partition(".")[0]]
        for space, _, name in (each.partition("::") for each in torch._C._dispatch_get_all_op_names())
    )
    return sorted({"::".join(pair) for pair in pairs if pair[0] not in _OPERATORS and names.issuperset(pair)})
