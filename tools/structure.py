"""How deep the house is: `python tools/structure.py` prints import floors, file by file, and the longest chain.

A module that imports nothing of ours stands on floor 0, any other one floor above the highest that it imports; late
imports (inside functions) count, those for types alone do not.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "rag_opt"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imported(name: str) -> set[str]:
    """The modules of ours that a module imports, wherever in it, but for types."""
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {each for each in found if each in MODULES and each != name}


@cache
def floor(name: str) -> int:
    return max((1 + floor(each) for each in imported(name)), default=0)


def main() -> None:
    floors = {name: floor(name) for name in MODULES}
    highest = max(floors.values())
    print(f"{len(MODULES)} modules, import floors 0 to {highest}; on the highest: ", end="")
    print(", ".join(name for name, each in floors.items() if each == highest))
    chain, at = [], next(name for name, each in floors.items() if each == highest)
    while True:
        chain.append(f"{floors[at]:>3} {at}")
        below = [each for each in imported(at) if floors[each] == floors[at] - 1]
        if not below:
            break
        at = min(below)
    print("\n".join(chain))


if __name__ == "__main__":
    main()
