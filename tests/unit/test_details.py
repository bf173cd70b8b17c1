"""What is said of finalists beside their score: small p values, other metrics, the ends of ranges."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from mlflow.exceptions import MlflowException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from rag_opt.analysis.confirmation import Arm
from rag_opt.analysis.details import format_edges, format_p_value, tabulate_metrics
from rag_opt.tracking.failures import format_repair


@pytest.mark.parametrize(
    ("p", "told"),
    [(0.0004, "<0.001"), (0.0005, "0.001"), (0.0351, "0.035"), (1.0, "1.000"), (0.0, "<0.001"), (float("nan"), "")],
)
def test_a_small_p_value_is_not_zero(p: float, told: str) -> None:
    assert format_p_value(p) == told


def findings(**means: dict[str, float]) -> SimpleNamespace:
    arm = Arm("best", 3, (), 0.8, 0.7, 0.6, 0.8, 100.0, 1.0)
    arms = (arm, replace(arm, role="baseline", trial=0))
    return SimpleNamespace(confirmation=SimpleNamespace(arms=arms, selected_arm=SimpleNamespace(trial=0)), means=means)


def test_other_metrics_are_values() -> None:
    found = findings(**{"3": {"nDCG@10": 0.71234, "R@10": 0.9, "tokens": 1234.5}, "0": {"nDCG@10": 0.5, "R@10": 0.8}})
    assert tabulate_metrics(found) == (
        ["trial", "role", "nDCG@10", "R@10", "tokens"],
        [["3", "best", "0.7123", "0.9000", "1,234"], ["0", "baseline", "0.5000", "0.8000", ""]],
    )
    assert tabulate_metrics(findings())[1] == []
    assert tabulate_metrics(SimpleNamespace(confirmation=None, means={}))[1] == []


@pytest.mark.parametrize(
    ("name", "distribution", "value", "told"),
    [
        ("top_k", IntDistribution(3, 20), 20, "top_k=20 (3 to 20)"),
        ("top_k", IntDistribution(3, 20), 3, "top_k=3 (3 to 20)"),
        ("top_k", IntDistribution(3, 20), 19, ""),
        ("top_k", IntDistribution(5, 5), 5, ""),
        ("b", FloatDistribution(0.0, 1.0), 0.005, "b=0.005 (0 to 1)"),
        ("b", FloatDistribution(0.0, 1.0), 0.02, ""),
        ("rate", FloatDistribution(0.001, 1.0, log=True), 0.00101, "rate=0.00101 (0.001 to 1)"),
        ("rate", FloatDistribution(0.001, 1.0, log=True), 0.005, ""),
        ("chunk_size", CategoricalDistribution([50, 100, 400]), 400, "chunk_size=400 (50 to 400)"),
        ("chunk_size", CategoricalDistribution([50, 100, 400]), 100, ""),
        ("splitter.overlap up to 40", IntDistribution(0, 40), 40, ""),
        ("title", CategoricalDistribution([True, False]), True, ""),
        ("retriever", CategoricalDistribution(["bm25", "dense", "hybrid"]), "bm25", ""),
    ],
)
def test_a_value_at_the_end_of_its_range_is_said(name: str, distribution, value, told: str) -> None:
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(params={name: value}, distributions={name: distribution}, value=1.0))
    line = format_edges(findings(), study)
    assert line == (
        f"at the edge of what was searched: {told} of trial 0; where values beyond it make sense, search them, too"
        if told
        else ""
    )


def test_a_repair_of_mlflow_is_promised_only_where_it_comes() -> None:
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, PERMISSION_DENIED

    for error in (ConnectionError("away"), OSError("full"), MlflowException("away", INTERNAL_ERROR)):
        assert format_repair(error) == "and the same command repairs MLflow once that can be written"
    for code in (INVALID_PARAMETER_VALUE, PERMISSION_DENIED):
        assert "refuse that again" in format_repair(MlflowException("no", code))
