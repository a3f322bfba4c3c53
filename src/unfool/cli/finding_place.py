"""The file that findings of an evaluation are shown at: the model's code, the run's configuration or the weights."""

from __future__ import annotations

import ast
from pathlib import Path

from unfool.cli.options.shared import ModelOptions
from unfool.core.borders.reading import is_file
from unfool.report.sarif import Place
from unfool.training.folder import CONFIG


def place_of(options: ModelOptions) -> Place:
    """The place of the classifier that the options name."""
    if options.model is not None:
        file, _, name = options.model.rpartition(":")
        for path in filter(None, (file, options.model)):
            if is_file(path):
                return Place(file=Path(path), line=_line_of(Path(path), name))
    candidates = [options.system, options.weights]
    if options.system is not None:
        candidates.insert(0, options.system / CONFIG)
    for path in candidates:
        if path is not None and is_file(path):
            return Place(file=path)
    return Place(name=options.model or str(options.system))


def _line_of(path: Path, name: str) -> int:
    """Where a Python file defines a name; 1 for one that it imports, or for another kind of file."""
    try:
        tree = ast.parse(path.read_bytes()) if path.suffix == ".py" else ast.Module(body=[], type_ignores=[])
    except (OSError, SyntaxError, ValueError):
        return 1
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if name in names:
            return node.lineno
    return 1
