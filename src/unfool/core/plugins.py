"""Plugins: tasks, attacks, defenses, data sets and more that other packages and single files add.

A package names its modules in entry points (``unfool.tasks``, ``unfool.attacks``, …); a file is loaded by
`load_plugin`, by ``--plugin FILE``, or through UNFOOL_PLUGINS, a list of files as PATH is one of folders. A file that
is loaded joins that list, so that processes started later (workers of a study or of a loader) load it too: its
registered items on their first look-up, its classes when they are unpickled.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from unfool.core.borders.reading import is_file
from unfool.core.errors import SpecError
from unfool.core.user_code import content_digest, folder_on_path, import_file, run_user_code

VARIABLE = "UNFOOL_PLUGINS"
"""The environment variable that lists plugin files."""


@dataclass
class _Plugin:
    """A plugin, loading or loaded: its title for messages, its module's name, and what removes its items again."""

    title: str
    module: str = ""
    whole: bool = False
    """Whether all that is registered meanwhile is the plugin's, whichever module does it."""
    undo: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])

    def remove_items(self) -> None:
        while self.undo:
            self.undo.pop()()


_loading: list[_Plugin] = []
"""The plugin that is being imported, if any."""
_files: dict[Path, _Plugin] = {}
"""Plugin files that are loaded, or being loaded."""

__path__: list[str] = []
"""Makes this module the package of all plugin files; `_Finder` says where each lies."""


def load_plugin(path: str | Path) -> ModuleType:
    """Import a Python file that registers tasks, attacks, defenses, data sets or other items.

    The file uses the registries' decorators, such as ``@TASKS.add("my-task")``. Its folder is on ``sys.path`` while it
    is imported. A file that is loaded already is not imported again, unless its content has changed: then its items
    take the place of the old ones. The environment variable UNFOOL_PLUGINS is extended, so that worker processes load
    the file as well.

    Args:
        path: The file, ending in ``.py``.

    Returns:
        The imported module. Its name contains a hash of its content, so that results of two versions of a defense or
        trunk are told apart.

    Raises:
        SpecError: A file that is missing, raises an error, or registers a name that is taken; nothing of it stays.

    Example:
        >>> import pathlib, tempfile
        >>> from unfool import load_plugin, make_task
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "my_task.py"
        >>> source = "from unfool.tasks import TASKS" + chr(10) + "TASKS.add('digit-names')(TASKS['labels'])"
        >>> _ = path.write_text(source)
        >>> load_plugin(path).__name__.startswith("unfool.core.plugins.my_task_")
        True
        >>> from unfool.tasks import TASKS
        >>> "digit-names" in TASKS
        True
    """
    file = _resolved(path)
    if not is_file(file):
        raise SpecError(f"there is no plugin file {path}; give a Python file (--plugin FILE, {VARIABLE})")
    name = _module_name(file)
    known = _files.get(file)
    if known is not None:
        if known.module == name:
            return sys.modules[known.module]
        unload_plugin(file)
    plugin = _Plugin(f"plugin {path}", name)
    _files[file] = plugin
    try:
        with _loading_only([plugin]), folder_on_path(file.parent):
            module = run_user_code(plugin.title, lambda: import_file(file, name))
    except BaseException:
        unload_plugin(file)
        raise
    listed = plugin_files()
    if file not in listed:
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*listed, file]))
    return module


def _resolved(path: str | Path) -> Path:
    """The whole path of a plugin file; SpecError for the home folder of nobody."""
    try:
        return Path(os.path.realpath(Path(path).expanduser()))
    except (RuntimeError, ValueError) as error:
        raise SpecError(f"there is no plugin file {path} ({error}); write out its path") from error


def unload_plugin(path: str | Path) -> None:
    """Remove a plugin file's items from the registries, and the file from UNFOOL_PLUGINS."""
    file = _resolved(path)
    plugin = _files.pop(file, None)
    if plugin is None:
        return
    plugin.remove_items()
    sys.modules.pop(plugin.module, None)
    listed = [other for other in plugin_files() if other != file]
    os.environ[VARIABLE] = os.pathsep.join(map(str, listed))


def plugin_files() -> list[Path]:
    """The files that UNFOOL_PLUGINS lists."""
    parts = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [Path(part).expanduser().resolve() for part in parts if part.strip()]


def load_listed_plugins() -> None:
    """Load every file of UNFOOL_PLUGINS that is not loaded yet."""
    for file in plugin_files():
        if file not in _files:
            load_plugin(file)


def load_entry_points(group: str, register: Callable[[str, object], None]) -> None:
    """Load what installed packages name in ``group``; what is no module goes to ``register`` with its entry's name.

    Raises SpecError that names package and entry point for one that cannot be loaded.
    """
    for entry in _installed(group):
        package = entry.dist.name if entry.dist is not None else "an unknown package"
        plugin = _Plugin(f"entry point {entry.name!r} ({group}) of the package {package}")
        try:
            with _loading_only([plugin]):
                item = run_user_code(plugin.title, entry.load)
                if not isinstance(item, ModuleType):
                    plugin.whole = True
                    register(entry.name, item)
        except SpecError as error:
            plugin.remove_items()
            raise SpecError(f"{str(error).removesuffix(', or look closer with --debug')}, or uninstall it") from error


@functools.cache
def _installed(group: str) -> Sequence[EntryPoint]:
    return tuple(entry_points(group=group))


def note_item(undo: Callable[[], object]) -> None:
    """Called by a registry for every new item: the plugin that registers it, if any, remembers how to remove it."""
    if (plugin := _registering()) is not None:
        plugin.undo.append(undo)


def loading_plugin() -> str | None:
    """Title of the plugin that registers an item now; None outside of one."""
    plugin = _registering()
    return None if plugin is None else plugin.title


def _registering() -> _Plugin | None:
    """The plugin being loaded, unless it is a module of the library, imported by the plugin, that registers."""
    if not _loading:
        return None
    module = importing_module()
    own = module.split(".")[0] == __name__.split(".")[0] and not module.startswith(f"{__name__}.")
    return None if own and not _loading[-1].whole else _loading[-1]


def importing_module() -> str:
    """Name of the module whose top level is being executed, the innermost of several."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def outside_plugins() -> AbstractContextManager[None]:
    """A context in which new items are nobody's: a registry loads the library's own in it."""
    return _loading_only([])


@contextmanager
def _loading_only(plugins: list[_Plugin]) -> Generator[None, None, None]:
    before = _loading[:]
    _loading[:] = plugins
    try:
        yield
    finally:
        _loading[:] = before


def _module_name(file: Path) -> str:
    return f"{__name__}.{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}_{content_digest(file)}"


class _Finder:
    """Finds the module of a listed plugin file by its name, as unpickling in a new process needs it."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        for file in plugin_files():
            with suppress(OSError):
                if _module_name(file) == name:
                    return ModuleSpec(name, _Loader(file), origin=str(file))
        return None


class _Loader(Loader):
    """Loads a plugin file for an import of its module."""

    def __init__(self, file: Path):
        self.file = file

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return load_plugin(self.file)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: `load_plugin` ran the file."""


sys.meta_path.append(_Finder)
