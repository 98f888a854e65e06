"""Facts read from the source of `mt`: modules, the imports between them, classes and functions."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import mt

PACKAGE = Path(mt.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, Path]:
    """Return every module of `mt` by its dotted name; a package is its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("mt", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(modules()[module].read_text())


def imports(module: str) -> set[str]:
    """Return the modules of `mt` that a module names in its imports, at any depth of the file.

    Imports inside functions and under `TYPE_CHECKING` count; so do the lazy exports of a package, which its
    `TYPE_CHECKING` block repeats.  Registries that name modules in strings do not: an entry is data.
    """
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & modules().keys() or {node.module}
            found |= {node.module} if names - modules().keys() else set()
    return found & modules().keys()


def circles(arrows: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the sets of nodes that reach each other: the strongly connected parts of more than one node."""
    reached = {start: _reached(arrows, start) for start in arrows}
    parts = {frozenset({n, *(m for m in reached[n] if n in reached[m])}) for n in arrows if n in reached[n]}
    return sorted(map(set, parts), key=sorted)


def _reached(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = [start]
    while todo:
        new = arrows[todo.pop()] - found
        found |= new
        todo += new
    return found


def classes() -> dict[str, list[str]]:
    """Return the modules that define a class, by the class's name."""
    found = defaultdict(list)
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    return found


def functions() -> Iterator[tuple[str, Function]]:
    """Yield every function and method with its name: `mt.cache.catalog.Catalog.entries`."""
    for module in modules():
        yield from _functions(tree(module), module)


def _functions(node: ast.AST, owner: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{owner}.{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from _functions(child, name)
        else:
            yield from _functions(child, owner)


def n_parameters(function: Function) -> int:
    """Return how many parameters a caller sees, without `self`, `cls`, `*args` and `**kwargs`."""
    args = function.args
    return sum(arg.arg not in ("self", "cls") for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs])


def is_command(function: Function) -> bool:
    """Return whether click calls the function: a `command` or a `group` decorates it."""
    calls = [node for node in function.decorator_list if isinstance(node, ast.Call)]
    names = [call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func) for call in calls]
    return bool({"command", "group"} & set(names))


@cache
def _bases() -> dict[str, set[str]]:
    """Return the names of the bases of every class, by the class's name."""
    nodes = [node for module in modules() for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef)]
    return {node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases} for node in nodes}


def is_estimators_init(name: str) -> bool:
    """Return whether `name` is the `__init__` of a class that scikit-learn treats as an estimator."""
    *_, class_name, method = name.split(".")
    return method == "__init__" and "BaseEstimator" in _reached(defaultdict(set, _bases()), class_name)


def has_untyped_options(function: Function) -> bool:
    """Return whether the function takes `**options: Any`, whose types mypy cannot check."""
    last = function.args.kwarg
    return last is not None and (last.annotation is None or ast.unparse(last.annotation) == "Any")


def folder_sizes() -> Counter[str]:
    """Return the number of modules in each folder, including `__init__`."""
    return Counter(str(path.parent.relative_to(PACKAGE.parent)) for path in modules().values())


def basenames() -> dict[str, list[str]]:
    """Return the modules that share a file name, except `__init__` and `__main__`."""
    found = defaultdict(list)
    for module, path in modules().items():
        if path.stem not in ("__init__", "__main__"):
            found[path.stem].append(module)
    return found


def imported_packages() -> set[str]:
    """Return the top-level names of everything that `mt` imports, at any depth of its files."""
    found = set()
    for module in modules():
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found
