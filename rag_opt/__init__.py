"""Find the best configuration of a RAG pipeline, and know how sure that is.

import rag_opt

study = rag_opt.optimize(documents, questions, space={"retriever": ["bm25", "dense", "hybrid"]}, n_trials=25)
print(study.result)
study.best_pipeline().run({"query": "Which animal purrs?"})
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.api.studies import Result, Study, load_study, optimize
    from rag_opt.errors import RagOptError
    from rag_opt.metrics.own import Case

__version__ = "0.1.0"
__all__ = ["Case", "RagOptError", "Result", "Study", "load_study", "optimize"]

HOMES = {
    **dict.fromkeys(("Result", "Study", "load_study", "optimize"), "rag_opt.api.studies"),
    "Case": "rag_opt.metrics.own",
    "RagOptError": "rag_opt.errors",
}
"""Where what is public lives: it is imported when it is first used, since much hangs on it."""

# `python -m rag_opt.gate` is commands/gate.py: Python looks for a package's modules in every folder of this list.
__path__ = [*__path__, str(Path(__file__).parent / "commands")]

# Telemetry is decided when a dependency is imported, so this must come before any of them.
environment.set_environment()


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'rag_opt' has no attribute '{name}'")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
