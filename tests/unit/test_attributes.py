"""What is noted of trials and studies: by which names, in which form, and what stands for what is not there."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.errors import StorageError
from rag_opt.storages.attributes import (
    Attribute,
    Attributes,
    StudyAttributes,
    TrialAttributes,
    get_attributes,
    get_study_attributes,
    save_payment,
)
from rag_opt.storages.schema_checks import check_study

USAGE = {"calls": 1, "tokens_in": 2, "tokens_out": 3, "usd": 0.5, "broken": 0}
OF_TRIALS = {
    "origin": ("model", 1),
    "seed": (0, "0"),
    "process": ({"worker": "a"}, {"worker": 1}),
    "command": ("python -m rag_opt.trial", ["python"]),
    "metrics": ({"nDCG@10": 0.5}, {"nDCG@10": "high"}),
    "seconds": ({"query": 1}, [1.0]),
    "usage": ({"generator": USAGE}, {"generator": {"calls": 1}}),
    "paid": ({"generator": 1}, {"generator": True}),
    "coverage": ({"judge.correct": 0.9}, "all"),
    "questions": (12, "12"),
    "so_far": ([0.1, 0.2], [0.1, None]),
    "repeats": (3, None),
    "reason": ("it failed", {"it": "failed"}),
    "interrupted": (True, "yes"),
    "outage": ("DISK", 7),
    "given_up": (True, 0),
    "retries": (2, [2]),
    "deaths": (1, "1"),
    "earlier_deaths": (1, "1"),
}
OF_STUDIES = {
    "rag_opt:fingerprints": ({"dataset": "a"}, [7]),
    "rag_opt:fingerprint_parts": ({"dataset": {"seed": "1"}}, {"dataset": "1"}),
    "stored": ([[{"retriever": "bm25"}, {"indexing": 1.0}]], [[{"retriever": ["bm25"]}, {}]]),
    "rag_opt:sampler_state": ({"qmc:a": 1}, "qmc"),
    "rag_opt:exhausted": ("GridSampler", 1),
    "rag_opt:settled": ("{}", {}),
    "rag_opt:settled_by": ([8, 1.0], "8"),
    "rag_opt:looks": ([4, 8], ["4"]),
    "rag_opt:tests": (["a"], ["a", 1]),
    "rag_opt:ledger": ("0a", 10),
    "rag_opt:forecast": ({"trials": 3, "calls": 40.0}, [3]),
    "rag_opt:report_artifact": ("0a", 10),
}
"""By its name in the database, which stays for the studies that are there, what is written and what is not."""


@pytest.mark.parametrize(("record", "table"), [(TrialAttributes, OF_TRIALS), (StudyAttributes, OF_STUDIES)])
def test_names_and_forms_are_those_of_the_database(record: type[Attributes], table: dict) -> None:
    known = {each.name for each in vars(record).values() if isinstance(each, Attribute)}
    assert known == set(table)
    for name, (written, foreign) in table.items():
        assert record.find_invalid({name: written}) == []
        assert record.find_invalid({name: foreign}) == [name]
    assert record.find_invalid({"of another program": object()}) == []


@pytest.mark.parametrize("name", OF_TRIALS)
def test_a_trial_with_an_attribute_of_another_form_is_refused_by_its_name(name: str) -> None:
    written, foreign = OF_TRIALS[name]
    study = optuna.create_study()
    study.add_trial(create_trial(value=0.5, user_attrs={name: written}))
    check_study(study, "here")
    study.add_trial(create_trial(value=0.5, user_attrs={name: foreign}))
    with pytest.raises(StorageError, match=rf"here: .*\(trial 1: {name}\)"):
        check_study(study, "here")


def test_what_was_not_noted_has_its_default() -> None:
    noted = get_attributes(create_trial(state=TrialState.FAIL))
    assert (noted.origin, noted.metrics, noted.repeats, noted.reason) == ("", {}, None, None)
    assert (noted.interrupted, noted.given_up, noted.deaths, noted.paid) == (False, False, 0, None)
    of_study = get_study_attributes(optuna.create_study())
    assert (of_study.fingerprints, of_study.looks, of_study.stored, of_study.settled) == ({}, [], None, "{}")


def test_what_is_noted_is_read_back() -> None:
    study = optuna.create_study()
    trial = study.ask()
    TrialAttributes.origin.save(trial, "seed")
    TrialAttributes.metrics.save(trial, {"nDCG@10": 0.5})
    StudyAttributes.looks.save(study, [4])
    save_payment(study, "a", [1.0, 2.0, 0.0, 3.0])
    assert get_attributes(trial).origin == get_attributes(study.trials[0]).origin == "seed"
    assert get_attributes(study.trials[0]).metrics == {"nDCG@10": 0.5}
    assert get_study_attributes(study).looks == [4]
    assert get_study_attributes(study).payments == {"a": [1.0, 2.0, 0.0, 3.0]}
    assert study.user_attrs["rag_opt:paid:a"] == [1.0, 2.0, 0.0, 3.0]
