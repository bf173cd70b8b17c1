"""Every figure that a test of faults reports has its row in studies/faults, and every row a test."""

from __future__ import annotations

import ast
import runpy

from tests.conftest import ROOT


def reported() -> set[str]:
    """The promises of which tests report figures."""
    found = set()
    for path in (ROOT / "tests/faults").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "figure":
                found.add(ast.literal_eval(node.args[0]))
    return found


def test_every_promise_has_a_row_and_every_row_a_test() -> None:
    assert reported() == set(runpy.run_path(str(ROOT / "studies/faults/table.py"))["PROMISES"])
