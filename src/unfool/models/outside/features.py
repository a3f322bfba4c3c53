# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What submodules of a foreign model give in a pass, as representations (B, D) or (B, C, H, W).

Legend: B images, C channels, D features, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from unfool.core.errors import SpecError
from unfool.core.spec import unknown

_RULE = "name a submodule that gives (B, D), (B, tokens, D) or (B, C, H, W) once a pass"


def module_paths(module: nn.Module) -> list[str]:
    """Dotted paths of a module's parts, in the order in which they were registered."""
    return [name for name, _ in module.named_modules() if name]


def checked_path(module: nn.Module, path: str) -> str:
    """The path of a submodule without the prefixes of wrappers; SpecError for one that is not there."""
    paths = module_paths(module)
    bare = path.removeprefix("module.").removeprefix("_orig_mod.")
    for name in (path, path.removeprefix("module."), bare, f"module.{bare}"):
        if name in paths:
            return name
    if shut := without_parts(module):
        raise SpecError(f"features {path!r} cannot be had: {shut}")
    raise unknown("features path", path[:80], paths)


def suggested_paths(module: nn.Module) -> str:
    """A few of a module's parts, as words for a message; empty for a module without parts."""
    names = [name for name, part in module.named_children() if list(part.modules())]
    return f", such as {', '.join(names[-3:])}" if names else ""


def run_watched(module: nn.Module, inputs: Tensor, paths: Iterable[str]) -> tuple[Any, dict[str, list[Any]]]:
    """What a module gives for its inputs, and what its submodules gave meanwhile, by path.

    Nothing stays on the module: a hook would keep images alive, and be copied with every fast copy.
    """
    seen: dict[str, list[Any]] = {path: [] for path in paths}
    if not seen:
        return module(inputs), seen
    if shut := without_parts(module):
        raise SpecError(f"features {min(seen)!r} cannot be had: {shut}")
    scripts = [path for path in seen if isinstance(module.get_submodule(path), torch.jit.ScriptModule)]
    if scripts:
        raise SpecError(f"features {scripts[0]!r} cannot be had: {without_parts(module.get_submodule(scripts[0]))}")
    nodes = _nodes(module, seen) if isinstance(module, fx.GraphModule) else {}
    hooks = [
        module.get_submodule(path).register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
        for path, kept in seen.items()
        if path not in nodes.values()
    ]
    try:
        if not nodes or not isinstance(module, fx.GraphModule):
            return module(inputs), seen
        return _Watching(module, nodes, seen).run(inputs, enable_io_processing=True), seen
    finally:
        for hook in hooks:
            hook.remove()


def _nodes(module: fx.GraphModule, paths: Iterable[str]) -> dict[fx.Node, str]:
    """The nodes of an exported program that give what submodules gave, which are not called there."""
    called = {node.target for node in module.graph.nodes if node.op == "call_module"}
    nodes: dict[str, fx.Node] = {}
    for node in module.graph.nodes:
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            if path in paths and path not in called and node.op.startswith("call") and "guards" not in str(node.target):
                nodes[path] = node
    return {node: path for path, node in nodes.items()}


class _Watching(fx.Interpreter):
    """Runs a program node by node, and keeps what some nodes give."""

    def __init__(self, module: fx.GraphModule, nodes: Mapping[fx.Node, str], seen: Mapping[str, list[Any]]):
        super().__init__(module)
        self.watched, self.seen = nodes, seen

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.watched:
            self.seen[self.watched[n]].append(value)
        return value


def representations(seen: Mapping[str, list[Any]], count: int) -> dict[str, Tensor]:
    """What the watched submodules gave for ``count`` images: float32 (B, D) or (B, C, H, W) by path.

    Tokens (B, T, D) are averaged; of an output object its pooled features are taken, else its last hidden state.
    Raises SpecError for a submodule that was not run once, or that gave something else.
    """
    features: dict[str, Tensor] = {}
    for path, outputs in seen.items():
        if len(outputs) != 1:
            raise SpecError(f"features {path!r}: {len(outputs)} outputs were seen, and one is needed; {_RULE}")
        values = _tensor_of(outputs[0])
        if values is None or len(values) != count or values.ndim not in (2, 3, 4) or not values.is_floating_point():
            shape = type(outputs[0]).__name__ if values is None else f"a tensor of shape {tuple(values.shape)}"
            raise SpecError(f"features {path!r} are no representation, but {shape}; {_RULE}")
        values = values.mean(1) if values.ndim == 3 else values
        features[path] = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return features


def _tensor_of(output: Any) -> Tensor | None:
    """The tensor in what a submodule gave."""
    if isinstance(output, Tensor):
        return output if output.ndim else None
    for name in ("pooler_output", "last_hidden_state"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor) and value.ndim:
            return value
    if isinstance(output, (tuple, list)) and output:
        return _tensor_of(output[0])
    return None


def without_parts(module: nn.Module) -> str:
    """Why nothing can be seen inside a module; empty for one whose parts can be watched."""
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript program does not show what its parts give; give --model FILE.py:NAME of its Python code"
    if getattr(module, "scores", None) is not None and getattr(module, "black_box", False):
        return "a black box gives scores alone; give the module behind it"
    if not list(module.children()):
        return "the model has no submodules; put its first layers into one"
    return ""
