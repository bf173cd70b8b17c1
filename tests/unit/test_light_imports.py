"""PyTorch is loaded where a model runs: a study without one, its workers and its report start without it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import rag_opt

STUDY = """
import sys
import rag_opt.cli.study, rag_opt.study.plan, rag_opt.study.loop, rag_opt.reporting.report, rag_opt.workers.worker
import rag_opt.components.retrievers.dense, rag_opt.components.rerankers.pairs, rag_opt.api.studies
from rag_opt.system.environment import use_threads
use_threads(1)
assert "torch" not in sys.modules, "PyTorch is loaded"
from haystack.utils import ComponentDevice
from haystack.utils.device import torch as haystacks
assert str(ComponentDevice.from_str("cpu").to_torch()) == "cpu"
import torch
assert haystacks.device is torch.device
assert torch.get_num_threads() == 1
use_threads(2)
assert torch.get_num_threads() == 2
"""


def test_a_study_without_a_model_loads_no_pytorch_and_haystack_finds_it() -> None:
    found = subprocess.run([sys.executable, "-c", STUDY], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr


def test_haystack_is_imported_in_one_place() -> None:
    folder = Path(rag_opt.__file__).parent
    places = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names])
        if name.partition(".")[0] == "haystack"
    }
    assert places == {"system/haystack.py"}
