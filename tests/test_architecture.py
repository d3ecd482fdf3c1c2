"""The house keeps its shape: rooms import downwards only, nothing imports in a circle, and no service file lies loose."""

from __future__ import annotations

import ast
from pathlib import Path

import maskbatch

PACKAGE = Path(maskbatch.__file__).parent

# From the ground up; a room may import those on lower floors, and itself.
FLOORS = [
    {"errors"},
    {"registry", "tasks"},
    {"types", "config"},
    {"storage", "web"},
    {"models"},
    {"runtime"},
    {"sources", "detect", "classify", "jobs"},
    {"results"},
    {"draw", "pipeline"},
    {"scanning", "live", "evaluate", "report", "review"},
    {"formats"},
    {"diagnose"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOT = {"__init__", "__main__"}
"""`maskbatch/__init__.py` hands out names of all rooms on first use; `__main__` starts the command line."""


def modules() -> dict[str, Path]:
    """Dotted name below the package → file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(path: Path, *, everywhere: bool) -> set[str]:
    """Dotted names below the package that a file imports: on loading, or (everywhere) also in functions and for types alone."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if everywhere else _on_loading(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "maskbatch":
            base = node.module.partition(".")[2]
            found |= {f"{base}.{alias.name}" if base else alias.name for alias in node.names} | (
                {base} if base else set()
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("maskbatch.")}
    return found


def _on_loading(tree: ast.AST) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            found += _on_loading(node)
    return found


def test_every_room_has_its_floor_and_nothing_lies_loose() -> None:
    rooms = {name.partition(".")[0] for name in modules()} - ROOT
    assert rooms - set(FLOOR) == set(), "a new room: give it a floor in FLOORS and a line in CONTRIBUTING.md"


def test_imports_run_downwards() -> None:
    wrong = []
    for name, path in modules().items():
        room = name.partition(".")[0]
        if room in ROOT:
            continue
        for target in imports(path, everywhere=True):
            other = target.partition(".")[0]
            if other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]:
                wrong.append(f"{name} imports {target}")
    assert wrong == []


def test_nothing_imports_in_a_circle() -> None:
    files = modules()
    graph = {
        name: {target for target in imports(path, everywhere=False) if target in files and target != name}
        for name, path in files.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_stores_are_told_apart_in_their_own_room_only() -> None:
    for name, path in modules().items():
        if not name.startswith("storage"):
            assert "isinstance(store" not in path.read_text(), name


def test_every_public_name_is_there() -> None:
    assert sorted(maskbatch._MODULES) == sorted(set(maskbatch.__all__) - {"__version__"})
    for name in maskbatch.__all__:
        assert getattr(maskbatch, name) is not None
