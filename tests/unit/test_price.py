"""What the recommended configuration costs beside the baseline, and what it changes."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from rag_opt.analysis.findings import Ablation
from rag_opt.analysis.price import format_price, tabulate_settings
from rag_opt.records.scores import Latency

METRICS = {"tokens": 1000.0, "usd": 0.0, "index_size": 50.0, "latency": 1.0}
SPACE = {"retriever": CategoricalDistribution(["bm25", "hybrid"]), "retriever.hybrid_weight": FloatDistribution(0, 1)}


def study(**changed: float) -> optuna.Study:
    """A baseline, and trial 1 whose metrics are these."""
    found = optuna.create_study(direction="maximize")
    for origin, choice, metrics in (("baseline", "bm25", METRICS), ("random", "hybrid", METRICS | changed)):
        params = {"retriever": choice} | ({"retriever.hybrid_weight": 0.25} if choice == "hybrid" else {})
        found.add_trial(
            optuna.create_trial(
                value=0.5,
                params=params,
                distributions={name: SPACE[name] for name in params},
                user_attrs={"origin": origin, "metrics": metrics},
            )
        )
    return found


def findings(selected: int = 1, cost: str = "tokens", *, kept: bool = False, **latencies: float) -> SimpleNamespace:
    timed = {name.replace("_", " "): Latency(seconds, 2 * seconds, 50) for name, seconds in latencies.items()}
    return SimpleNamespace(
        confirmation=SimpleNamespace(selected_arm=SimpleNamespace(trial=selected), keeps_baseline=kept),
        cost=cost,
        targets=("nDCG@10",),
        ablations=(),
        latencies=timed,
    )


def test_a_price_is_told_in_percent_of_the_baselines() -> None:
    told = findings(baseline=0.010, trial_1=0.0108)
    assert format_price(told, study(tokens=1670.0)) == "+67 % tokens, +8 % latency"
    assert format_price(told, study(tokens=1001.0)) == "the same tokens, +8 % latency"
    assert (
        format_price(findings(cost="index_size"), study(tokens=500.0, index_size=100.0))
        == "-50 % tokens, +100 % index_size"
    )


def test_what_is_optimised_and_what_is_not_known_is_no_price() -> None:
    told = findings(trial_1=0.1)
    told.targets = ("nDCG@10", "tokens")
    assert format_price(told, study(tokens=1670.0)) == ""
    assert format_price(findings(), study(tokens=float("nan"))) == ""
    assert format_price(findings(selected=0), study()) == ""
    assert tabulate_settings(findings(selected=0), study())[1] == []


def test_the_settings_that_differ_are_listed_with_those_that_exist_on_one_side_only() -> None:
    header, rows = tabulate_settings(findings(), study())
    assert header == ["setting", "baseline", "recommended"]
    assert tabulate_settings(findings(kept=True), study())[0] == ["setting", "baseline", "trial 1"]
    assert rows == [["retriever", "bm25", "hybrid"], ["retriever.hybrid_weight", "-", "0.25"]]


@pytest.mark.parametrize("gone", ["confirmation", "baseline"])
def test_without_a_pair_there_is_neither(gone: str) -> None:
    told, found = findings(), study()
    if gone == "confirmation":
        told.confirmation = None
    else:
        found = optuna.create_study()
    assert format_price(told, found) == ""
    assert tabulate_settings(told, found)[1] == []


def test_what_a_setting_brings_stands_beside_it() -> None:
    told = findings()
    told.ablations = (Ablation("retriever", 0.03, 0.01, 0.05), Ablation("splitter"))
    header, rows = tabulate_settings(told, study())
    assert header == ["setting", "baseline", "recommended", "effect on nDCG@10"]
    assert rows == [
        ["retriever", "bm25", "hybrid", "+0.0300 [+0.0100, +0.0500]"],
        ["retriever.hybrid_weight", "-", "0.25", ""],
    ]
    told.ablations = (Ablation("retriever"),)
    assert len(tabulate_settings(told, study())[0]) == 3
