"""No import goes in a circle, neither at run time nor for type checkers, inside rooms and between them."""

import ast
from pathlib import Path

import pytest

import unfool

ROOT = Path(unfool.__file__).parent


def module_name(path, root):
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_level(tree):
    """Every statement that runs, or is read by a type checker, when the module is imported: not those of functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def imports(name, is_package, source, modules):
    """The modules of the package that a module imports on its top level, under ``if TYPE_CHECKING`` included."""
    for node in top_level(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                if inner in modules or origin in modules:
                    yield inner if inner in modules else origin


def graph(sources):
    """Module by module, what it imports; ``sources`` maps names to (is it a package, text)."""
    return {
        name: sorted({other for other in imports(name, package, text, sources) if other != name})
        for name, (package, text) in sources.items()
    }


def circles(edges):
    """Sets of modules that import each other, by Tarjan's algorithm (SIAM J. Comput. 1972)."""
    order, low, stack, result = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in edges[node]:
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                result.append(sorted(members))

    for node in edges:
        if node not in order:
            visit(node)
    return sorted(result)


@pytest.fixture(scope="module")
def edges():
    files = {module_name(path, ROOT): path for path in ROOT.rglob("*.py")}
    return graph({name: (p.name == "__init__.py", p.read_text(encoding="utf-8")) for name, p in files.items()})


def test_no_module_imports_in_a_circle(edges):
    assert circles(edges) == []


def test_no_wing_imports_in_a_circle(edges):
    """A wing counts as one: what lies in it is either below or above another part of its room."""

    def wing(name):
        return ".".join(name.split(".")[:3])

    between = {wing(name): set() for name in edges}
    for name, others in edges.items():
        between[wing(name)] |= {wing(other) for other in others} - {wing(name)}
    assert circles(between) == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"p.a": "import p.b", "p.b": "from p import a"}, [["p.a", "p.b"]]),
        ({"p.a": "from .b import x", "p.b": "from . import a"}, [["p.a", "p.b"]]),
        (
            {"p.a": "from p.b import x", "p.b": "if TYPE_CHECKING:\n    from p.c import y", "p.c": "import p.a"},
            [["p.a", "p.b", "p.c"]],
        ),
        ({"p.a": "class A:\n    from p.b import x", "p.b": "import p.a"}, [["p.a", "p.b"]]),
        ({"p": "from p.a import x", "p.a": "from p import y"}, [["p", "p.a"]]),
        ({"p": "from p import a", "p.a": "from p.b import y", "p.b": ""}, []),
        ({"p.a": "from p.b import x", "p.b": "def f():\n    from p.a import y"}, []),
    ],
)
def test_a_circle_is_seen(sources, expected):
    named = {name: (name == "p", text) for name, text in ({"p": ""} | sources).items()}
    assert circles(graph(named)) == expected
