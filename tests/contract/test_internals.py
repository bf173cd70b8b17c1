"""One module touches what Optuna keeps to itself, and one names what is noted of trials and studies."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rag_opt

PACKAGE = Path(rag_opt.__file__).parent
MODULES = [
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.parent.name not in ("samplers", "conf")
]
OPTUNA = re.compile(r"(study|trial|storage|sampler|pruner|distribution)s?$|^(t|each|optuna)$", re.IGNORECASE)
SYSTEM = ("system_attrs", "get_study_system_attrs", "set_study_system_attr", "set_trial_system_attr")


def touches(source: str) -> Iterator[str]:
    """What a module reads of Optuna that Optuna does not offer."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            names = [*(node.module or "").split("."), *(each.name for each in node.names)]
            yield from (f"{node.module}: {name}" for name in names if name.startswith("_"))
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.attr in SYSTEM or (private and OPTUNA.search(owner.rpartition(".")[2]) and owner != "self"):
                yield ast.unparse(node)


def names_attributes(source: str) -> Iterator[str]:
    """Where a module reads or writes an attribute of a trial or a study by a name that it spells itself."""
    for node in ast.walk(ast.parse(source)):
        text = ast.unparse(node)
        of = isinstance(node, ast.Subscript | ast.Compare) and "user_attrs" in text.partition("[")[0]
        if of or (
            isinstance(node, ast.Call) and re.match(r".*(user_attrs\.get|set_user_attr)$", ast.unparse(node.func))
        ):
            yield from (str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant))


def test_the_search_for_what_is_private_finds_it() -> None:
    reading = "study._storage.get_all_trials(self.study._study_id)"
    assert {*touches(reading)} == {"study._storage", "self.study._study_id"}
    assert [*touches("from optuna.storages._rdb import models\nfrom optuna.study import _tell")] == [
        "optuna.storages._rdb: _rdb",
        "optuna.study: _tell",
    ]
    assert [*touches("trial.system_attrs['fixed_params']; self._trials; plan._study")] == ["trial.system_attrs"]
    spelt = "a.user_attrs['x']; t.user_attrs.get('y', {}); trial.set_user_attr('z', 1); 'q' in t.user_attrs"
    assert {"x", "y", "z", "q"} <= set(names_attributes(spelt))


@pytest.mark.parametrize("module", MODULES)
def test_one_module_touches_what_optuna_keeps_to_itself(module: str) -> None:
    found = [*touches((PACKAGE / module).read_text("utf-8"))]
    assert bool(found) == (module == "internals.py"), found


@pytest.mark.parametrize("module", MODULES)
def test_attributes_are_named_in_one_module(module: str) -> None:
    assert module == "attributes.py" or [*names_attributes((PACKAGE / module).read_text("utf-8"))] == []
