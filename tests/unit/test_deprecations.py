"""What rag_opt or a test uses and is deprecated fails a test; what a dependency uses of another does not."""

from __future__ import annotations

import warnings
from types import FunctionType

import pytest

KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


def deprecated(kind: type[Warning]) -> None:
    """A function that goes, and says so to who called it, as dependencies do."""
    warnings.warn("it goes", kind, stacklevel=2)


def called_from(module: str, kind: type[Warning]) -> None:
    """The call of a deprecated function in a module of that name."""

    def use(kind: type[Warning]) -> None:
        deprecated(kind)

    FunctionType(use.__code__, {"__name__": module, "deprecated": deprecated})(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", ["rag_opt", "rag_opt.text.tokenization", "tests.unit.test_text"])
def test_our_use_of_what_is_deprecated_is_an_error(module: str, kind: type[Warning]) -> None:
    with pytest.raises(kind, match="it goes"):
        called_from(module, kind)


@pytest.mark.parametrize("module", ["optuna.study", "rag_optimizer"])
def test_a_dependency_may_use_what_is_deprecated(module: str) -> None:
    called_from(module, DeprecationWarning)
