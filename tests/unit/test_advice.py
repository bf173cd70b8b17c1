"""When a change is recommended and when the baseline is kept: every case of the table in docs/studies.md."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag_opt.analysis import advice
from rag_opt.analysis.confirmation import Confirmation, MeasuredConfiguration, build_confirmation
from rag_opt.analysis.selection import Candidate, select_finalists
from rag_opt.analysis.verdict import explain_choice, format_evidence
from rag_opt.production.retuning import explain_decision

DOCS = Path(__file__).parents[2] / "docs" / "studies.md"
QUESTIONS = 80
HARD = np.random.default_rng(1).uniform(0.2, 0.8, QUESTIONS)
NOISE = np.random.default_rng(2).normal(0, 0.1, QUESTIONS)
NOISE -= NOISE.mean()


def confirmed(gain: float, cost: float = 1000.0, metric: str = "nDCG@10", *, handed: float | None = None, **more):
    """The baseline (trial 0, cost 1,000) and what was selected (trial 4), which gains so much on average."""
    ours = HARD + NOISE + gain
    selection = select_finalists([Candidate(4, ours, cost)], 1.0, 3)
    lists = (None, None) if handed is None else (HARD, HARD + NOISE + handed)
    measured = [
        MeasuredConfiguration("best", 4, ("retriever=dense",), 0.5, cost, ours, handed=lists[1]),
        MeasuredConfiguration("baseline", 0, (), 0.4, 1000.0, HARD, handed=lists[0]),
    ]
    return build_confirmation(metric, 1.0, "tokens", selection, measured, 0, 2000, **more)


def advised(*found: Confirmation) -> Confirmation:
    """The first objective with the advice that all of them lead to."""
    trial, case = advice.decide(found)
    return replace(found[0], recommended=trial, case=case)


def alone() -> Confirmation:
    found = confirmed(0.1)
    return replace(found, arms=found.arms[:1])


def same() -> Confirmation:
    return replace(confirmed(0.0), selected=0)


CASES = {
    "alone": ((alone(),), 4),
    "same": ((same(),), 0),
    "broken": ((replace(confirmed(-0.1), baseline_kept=False),), 4),
    "better": ((confirmed(0.1, cost=2000.0),), 4),
    "worse": ((confirmed(-0.1, cost=10.0),), 0),
    "better elsewhere": ((confirmed(0.001), confirmed(0.1, metric="F1")), 4),
    "cheaper": ((confirmed(0.001, cost=900.0),), 4),
    "unproven": ((confirmed(0.005, cost=2000.0),), 0),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_of_the_rule(case: str) -> None:
    found, trial = CASES[case]
    assert advice.decide(found) == (trial, case)


def test_the_docs_have_the_rule_as_it_is() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| (.+) \| (.+) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    told = [(case, kept) for case, _, kept in rows if case in advice.CASES]
    assert [case for case, _ in told] == list(advice.CASES) == list(CASES)
    assert all(kept.startswith("the baseline") == (CASES[case][1] == 0) for case, kept in told)


def test_dearer_and_not_better_beyond_noise_keeps_the_baseline_and_says_what_is_at_stake() -> None:
    found = advised(confirmed(0.01, cost=2000.0))
    assert found.keeps_baseline
    edge = f"{found.selected_arm.difference_high:+.4f}"
    assert format_evidence(found).startswith("nDCG@10 of trial 4: no difference from the baseline could be shown on 80")
    assert f"; at most {edge} is to be gained; about " in format_evidence(found)
    assert format_evidence(found).endswith(" would be needed")
    assert explain_choice(found) == (
        "the baseline (trial 0): trial 4, which the search selected, is not better beyond noise, and not cheaper (tokens)"
    )


def test_cheaper_counts_beyond_what_is_told_as_no_change() -> None:
    assert advised(confirmed(0.0, cost=996.0)).case == "unproven"
    found = advised(confirmed(0.0, cost=990.0))
    assert (
        explain_choice(found) == "trial 4: as good as the baseline within noise, and cheaper: tokens 990 against 1,000"
    )
    # Unknown costs are no reason.
    assert advised(confirmed(0.0, cost=math.inf)).case == "unproven"


def test_cheaper_is_no_reason_for_less_than_noise_explains() -> None:
    error = (HARD + NOISE - HARD).std(ddof=1) / math.sqrt(QUESTIONS)
    assert advised(confirmed(-0.9 * error, cost=500.0)).case == "cheaper"
    found = advised(confirmed(-1.1 * error, cost=500.0))
    assert found.case == "unproven"
    assert explain_choice(found).endswith("is cheaper (tokens), and nothing shows that it is as good")
    # What is handed on has to be as good, too: handing on less is cheap.
    assert advised(confirmed(0.0, cost=500.0, handed=-0.2)).case == "unproven"
    assert advised(confirmed(0.0, cost=500.0, handed=0.0)).case == "cheaper"


def test_of_several_objectives_the_first_decides_then_any_gain_that_nothing_pays_for() -> None:
    level, better, worse = confirmed(0.001), confirmed(0.1, metric="F1"), confirmed(-0.1, metric="EM")
    assert advice.decide([level, better, worse]) == (0, "unproven")
    assert advice.decide([confirmed(0.1), worse]) == (4, "better")
    assert advice.decide([confirmed(-0.1), better]) == (0, "worse")


def test_an_objective_that_is_measured_once_counts_without_an_interval() -> None:
    saved = confirmed(0.1, metric="latency", once=True)
    assert math.isnan(saved.selected_arm.p)
    assert advice.decide([confirmed(0.001), saved]) == (4, "better elsewhere")
    lost = confirmed(-0.1, metric="latency", once=True)
    assert advice.decide([confirmed(0.001, cost=500.0), lost]) == (0, "unproven")


def test_one_question_is_no_reason() -> None:
    selection = select_finalists([Candidate(4, np.array([0.5]), 10.0)], 1.0, 3)
    measured = [
        MeasuredConfiguration("best", 4, (), 0.5, 10.0, np.array([0.5])),
        MeasuredConfiguration("baseline", 0, (), 0.4, 1000.0, np.array([0.4])),
    ]
    assert advice.decide([build_confirmation("F1", 1.0, "tokens", selection, measured, 0)]) == (0, "unproven")


def test_findings_from_before_the_rule_are_read_as_they_were() -> None:
    node = confirmed(0.1).to_dict()
    for key in ("selected", "case"):
        del node[key]
    for arm in node["arms"]:
        del arm["level"]
    old = Confirmation.from_dict(node)
    assert old.recommended_arm is old.selected_arm
    assert not old.keeps_baseline


@pytest.mark.parametrize("name", CASES)
def test_a_served_model_is_replaced_where_the_other_is_better_or_as_good_and_cheaper(name: str) -> None:
    moves, why = explain_decision(advised(*CASES[name][0]), 0.0)
    assert moves == (name in ("better", "cheaper"))
    assert "constraint" in why if name == "broken" else "constraint" not in why


def test_a_served_model_stays_where_the_gain_is_too_small_to_be_worth_it_and_without_a_confirmation() -> None:
    found = advised(*CASES["better"][0])
    low = found.recommended_arm.difference_low
    assert 0 < low < 0.1
    assert explain_decision(found, low - 1e-9)[0]
    # The whole interval counts, not its middle.
    assert explain_decision(found, low)[0] is False
    # Cheaper at the same quality has nothing to gain but its price.
    assert explain_decision(advised(*CASES["cheaper"][0]), 0.5)[0]
    assert explain_decision(None, 0.0) == (False, "nothing was confirmed")
