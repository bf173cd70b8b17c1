"""What the questions can show, said before the search: a difference that is found in four of five simulated studies."""

from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.analysis import paired
from rag_opt.storages.attributes import TrialAttributes
from rag_opt.study import power
from rag_opt.study.terminator import ExpectedGain, format_prospect


def test_the_difference_that_is_named_is_shown_in_four_of_five_studies() -> None:
    rng = np.random.default_rng(0)
    told = paired.compute_detectable(0.25, 60)
    shown = [paired.compute_p_value(told + rng.normal(0, 0.25, 60), seed, resamples=999) <= 0.05 for seed in range(300)]
    assert 0.73 <= np.mean(shown) <= 0.87
    # The other way round it is the number of questions that shows it.
    values = rng.normal(0, 1, 60)
    values = told + 0.25 * (values - values.mean()) / values.std(ddof=1)
    assert paired.estimate_sample_size(values) in (60, 61)


def situation(scores: dict[int, np.ndarray], *, seeds: int, metric: str = "nDCG@10"):
    """A plan, the files and the study after trials with these scores, the first of which is the baseline."""
    origins = {number: "baseline" if number == 0 else "seed" for number in scores}
    trials = [
        create_trial(value=float(values.mean()), user_attrs={TrialAttributes.origin.name: origins[number]})
        for number, values in scores.items()
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    now = SimpleNamespace(
        get_trials=lambda deepcopy=True, states=None: [t for t in trials if states is None or t.state in states]
    )
    side = lambda count: SimpleNamespace(questions=SimpleNamespace(groups=np.arange(count), grouped=False))  # noqa: E731
    plan = SimpleNamespace(
        objective=SimpleNamespace(names=[metric]),
        seeds=[None] * seeds,
        dev=side(100),
        test=side(49),
        settings=SimpleNamespace(crossfits=False),
    )
    files = SimpleNamespace(load_scores=lambda trial, names: {names[0]: scores[trial.number]})
    return plan, files, now


@pytest.fixture
def spread() -> np.ndarray:
    values = np.random.default_rng(3).normal(0, 1, 100)
    return (values - values.mean()) / values.std(ddof=1)


def test_after_the_baseline_its_own_spread_says_it(spread) -> None:
    told = power.format_power(*situation({0: 0.5 + 0.25 * spread}, seeds=4))
    # 2.90 × 0.8 × 0.25 / 7, and 0.2 / 10.
    assert told == (
        "49 questions to confirm show a difference of 0.083 in 8 of 10 studies; half of it would take about 200 (judged by "
        "the spread of the baseline's scores). On the 100 searched ones 0.02 is noise: stopping=regret ends a search that "
        "can gain little beside it"
    )


def test_the_seeds_differences_say_it_better_and_only_once_all_were_measured(spread) -> None:
    base = np.full(100, 0.5)
    scores = {0: base, 1: base + 0.1 * spread, 2: base + 0.3 * spread, 3: base + 0.1 * spread}
    assert "show a difference of 0.041 in 8 of 10 studies" in power.format_power(*situation(scores, seeds=4))
    assert "judged by the seeds' differences from the baseline" in power.format_power(*situation(scores, seeds=4))
    assert power.format_power(*situation(scores, seeds=6)) == ""


def test_a_crossfit_shows_what_its_wider_interval_allows(spread) -> None:
    plan, files, now = situation({0: 0.5 + 0.25 * spread}, seeds=4)
    plan.settings.crossfits = True
    assert "show a difference of 0.099 in 8 of 10 studies" in power.format_power(plan, files, now)


def test_nothing_is_said_where_nothing_is_known(spread) -> None:
    assert power.format_power(*situation({0: np.full(100, 0.5)}, seeds=4)) == ""
    assert power.format_power(*situation({0: spread}, seeds=4, metric="latency")) == ""
    plan, files, now = situation({0: spread}, seeds=4)
    files.load_scores = lambda trial, names: {}
    assert power.format_power(plan, files, now) == ""
    now.get_trials()[0].state = TrialState.FAIL
    assert power.format_power(plan, files, now) == ""


def metrics_of(*names: str):
    return [
        SimpleNamespace(name=n, needs="qrels", reads="ranking", direction="maximize", pays=False, single=False)
        for n in names
    ]


def test_the_metric_that_needs_fewer_questions_is_named(spread) -> None:
    base = np.full(100, 0.5)
    rng = np.random.default_rng(5)
    scores = {0: base} | {n: base + 0.1 + 0.2 * rng.permutation(spread) for n in range(1, 13)}
    plan, files, now = situation(scores, seeds=4)
    plan.objective.metrics = metrics_of("nDCG@10", "AP@10")
    # Half the noise around the same gain: a quarter of the questions.
    sharp = {n: values if n == 0 else base + 0.1 + (values - base - 0.1) / 2 for n, values in scores.items()}
    books = {n: {"nDCG@10": scores[n], "AP@10": sharp[n]} for n in scores}
    files.load_scores = lambda trial, names: books[trial.number]
    told = power.format_sharper_metric(plan, files, now)
    assert told.startswith("AP@10 tells this study's configurations apart with ")
    share = float(told.split("with ")[1].split("%")[0])
    # (0.25 - 0.01) / (1 - 0.01): what noise alone gives is taken off.
    assert share == 24
    plan.objective.metrics = metrics_of("nDCG@10")
    assert power.format_sharper_metric(plan, files, now) == ""
    plan.objective.metrics = [
        *metrics_of("nDCG@10"),
        SimpleNamespace(**{**vars(metrics_of("AP@10")[0]), "reads": "context"}),
    ]
    assert power.format_sharper_metric(plan, files, now) == ""


def test_what_more_trials_may_gain_is_said_beside_the_noise() -> None:
    told = format_prospect(ExpectedGain(25, 0.0004, 0.016))
    assert told == (
        "another trial is expected to gain 0.0004, and the searched questions tell 0.016 apart: more questions would say "
        "more than more trials"
    )
    assert format_prospect(ExpectedGain(25, 0.004, 0.016)).endswith("more trials may find more")
    # At the share where stopping=regret ends a search.
    assert format_prospect(ExpectedGain(25, 0.05 * 0.016, 0.016)).endswith("more trials may find more")
    for gain, noise in ((np.nan, 0.016), (0.004, np.nan), (0.0, 0.016)):
        assert format_prospect(ExpectedGain(25, gain, noise)) == ""
