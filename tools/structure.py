"""The house in figures: `python tools/structure.py [REPOSITORY]` prints sizes, comments, floors and the longest chain.

A module that imports nothing of ours stands on floor 0, any other one floor above the highest that it imports; late
imports (inside functions) count, those for types alone do not.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
from functools import cache
from pathlib import Path
from tokenize import COMMENT, DEDENT, ENDMARKER, INDENT, NEWLINE, NL, generate_tokens

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
PACKAGE = "rag_opt"
LONG = 300
SILENT = (COMMENT, DEDENT, ENDMARKER, INDENT, NEWLINE, NL)
"""Tokens that make no line one of code."""


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


@cache
def imported(name: str) -> frozenset[str]:
    """The modules of ours that a module imports, wherever in it, but for types."""
    conditions = (node for node in ast.walk(TREES[name]) if isinstance(node, ast.If))
    typing = {inner for each in conditions if "TYPE_CHECKING" in ast.unparse(each.test) for inner in ast.walk(each)}
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module and node not in typing:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in inner}
        elif isinstance(node, ast.Import) and node not in typing:
            found |= {alias.name for alias in node.names}
    return frozenset(each for each in found if each in MODULES and each != name)


@cache
def floor(name: str) -> int:
    return max((1 + floor(each) for each in imported(name)), default=0)


def chain(name: str) -> list[str]:
    """The module, and below it what it stands on, floor by floor."""
    below = sorted(each for each in imported(name) if floor(each) == floor(name) - 1)
    return [f"{floor(name):>3} {name}", *(chain(below[0]) if below else [])]


def count_comments(name: str) -> tuple[int, int]:
    """Comments of a module, and its lines of code: neither empty, nor a comment alone, nor of a docstring."""
    read = list(generate_tokens(io.StringIO(MODULES[name].read_text("utf-8")).readline))
    told = [node.value for node in ast.walk(TREES[name]) if isinstance(node, ast.Expr)]
    texts = [each for each in told if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    documented = {line for each in texts for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)}
    held = {line for each in read if each.type not in SILENT for line in range(each.start[0], each.end[0] + 1)}
    return sum(each.type == COMMENT for each in read), len(held - documented)


def main() -> None:
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    functions = (node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    spans = sorted((node.end_lineno or node.lineno) - node.lineno + 1 for node in functions)
    top = max(MODULES, key=floor)
    print(f"modules: {len(MODULES)}, at the top level {len(list((ROOT / PACKAGE).glob('*.py')))}")
    print(
        f"modules over {LONG} lines: {sum(count > LONG for count in lines.values())}, the longest {max(lines.values())}"
    )
    print(f"function lines: median {statistics.median(spans):g}, p90 {spans[len(spans) * 9 // 10]}, most {spans[-1]}")
    comments, code = map(sum, zip(*map(count_comments, MODULES), strict=True))
    print(f"comments: {100 * comments / code:.1f} per 100 lines of code")
    print(f"import floors: 0 to {floor(top)}")
    print("\n".join(chain(top)))


if __name__ == "__main__":
    main()
