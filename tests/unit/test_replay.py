"""Recorded studies as tables, and searches over them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from scipy import stats

from rag_opt.cli import replay
from rag_opt.config.compose import compose_config
from rag_opt.errors import StudyError
from rag_opt.samplers import RagSampler
from rag_opt.simulation import contest
from rag_opt.simulation.searches import Run, Search, simulate_search, split_questions
from rag_opt.simulation.tables import Table, build_study_table, load_table, read_parquet, write_parquet
from rag_opt.study.sampling import build_pruner
from tests.conftest import animals_study

optuna.logging.set_verbosity(optuna.logging.ERROR)


def grid(questions: int = 40, seed: int = 0) -> Table:
    """Every configuration of a conditional space: 3 × 5 top_k, and for hybrid 4 weights."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.2, questions)
    rows = []
    for method in ("bm25", "dense", "hybrid"):
        for top_k in (1, 2, 3, 4, 5):
            for weight in (0.2, 0.4, 0.6, 0.8) if method == "hybrid" else (None,):
                value = {"bm25": 0.4, "dense": 0.45, "hybrid": 0.5}[method] + 0.02 * top_k
                value += 0.0 if weight is None else 0.1 - (weight - 0.6) ** 2
                given = {"method": method, "top_k": top_k} | ({} if weight is None else {"weight": weight})
                rows.append((given, value + hard + rng.normal(0, 0.02, questions)))
    return Table(
        name="grid",
        metric="nDCG@10",
        maximize=True,
        configurations=[given for given, _ in rows],
        distributions={
            "method": CategoricalDistribution(["bm25", "dense", "hybrid"]),
            "top_k": IntDistribution(1, 5),
            "weight": CategoricalDistribution([0.2, 0.4, 0.6, 0.8]),
        },
        scores=np.array([scores for _, scores in rows]),
        seconds=[{"index": 1.0}] * len(rows),
    )


def test_a_table_is_what_was_written(tmp_path) -> None:
    table = grid()
    write_parquet(table, tmp_path / "grid.parquet")
    found = read_parquet(tmp_path / "grid.parquet")
    assert (found.name, found.metric, found.maximize) == (table.name, table.metric, table.maximize)
    assert found.configurations == table.configurations
    assert found.distributions == table.distributions
    assert found.scores == pytest.approx(table.scores, abs=1e-6)
    assert found.seconds == table.seconds
    assert found.whole


def test_what_is_asked_for_is_what_the_space_has() -> None:
    """Each configuration of the grid leads to its own row; a weight is asked for with hybrid alone."""
    table = grid()
    study = optuna.create_study()
    for row, configuration in enumerate(table.configurations):
        study.enqueue_trial(dict(configuration) | {"weight": configuration.get("weight", 0.8)})
        trial = study.ask()
        assert table.sample_row(trial) == row
        assert trial.params == configuration


def test_what_was_not_measured_is_taken_from_the_nearest() -> None:
    whole = grid()
    kept = [row for row in range(len(whole.configurations)) if row % 3]
    part = Table(
        **{**vars_of(whole), "configurations": [whole.configurations[row] for row in kept]},
        scores=whole.scores[kept],
        seconds=[whole.seconds[row] for row in kept],
    )
    assert not part.whole
    assert 0 < part.compute_surrogate_error() < 0.3
    study = optuna.create_study()
    study.enqueue_trial({"method": "bm25", "top_k": 1})  # the first row, which is missing
    assert part.configurations[part.sample_row(study.ask())] == {"method": "bm25", "top_k": 2}


def vars_of(table: Table) -> dict[str, Any]:
    return {name: getattr(table, name) for name in ("name", "metric", "maximize", "configurations", "distributions")}


def test_a_search_of_everything_finds_the_best_and_regret_is_its_definition() -> None:
    table = grid()
    questions = split_questions(table, 3)
    assert not set(questions.dev) & set(questions.test)
    assert len(questions.dev) == len(questions.test) == 20
    run = simulate_search(Search(table, RandomSampler(seed=0), questions), len(table.configurations))
    assert sorted(run.rows) == list(range(len(table.configurations)))
    dev, test = table.compute_values(questions.dev), table.compute_values(questions.test)
    best = int(dev.argmax())
    assert run.dev[-1] == 0
    assert run.test[-1] == pytest.approx((test.max() - test[best]) / (test.max() - np.median(test)))
    first = run.rows[0]
    assert run.dev[0] == pytest.approx((dev.max() - dev[first]) / (dev.max() - np.median(dev)))
    near = [place for place, row in enumerate(run.rows) if dev[row] >= 0.99 * dev.max()]
    assert run.reached == near[0] + 1


def test_a_noisy_search_measures_some_of_dev_and_is_judged_on_all() -> None:
    table = grid()
    few = split_questions(table, 3, measured=5)
    assert len(few.measured) == 5
    assert set(few.measured) < set(few.dev)
    assert few.dev.tolist() == split_questions(table, 3).dev.tolist() == sorted(split_questions(table, 3).measured)
    search = Search(table, RandomSampler(seed=0), few)
    run = simulate_search(search, 10)
    assert search.values == pytest.approx(table.scores[search.rows][:, few.measured].mean(axis=1))
    best, dev = search.rows[int(np.argmax(search.values))], table.compute_values(few.dev)
    assert run.dev[-1] == pytest.approx((dev.max() - dev[best]) / (dev.max() - np.median(dev)))
    test = table.compute_values(few.test)
    assert run.test[-1] == pytest.approx((test.max() - test[best]) / (test.max() - np.median(test)))
    assert run.test[-1] != run.dev[-1]


def test_a_configuration_drawn_again_costs_nothing() -> None:
    run = simulate_search(Search(grid(), RandomSampler(seed=0), split_questions(grid(), 0)), 20)
    assert len(set(run.rows)) == len(run.rows) == 20
    assert run.random == 1


def test_losses_are_minimised() -> None:
    table = grid()
    losses = Table(**{**vars_of(table), "maximize": False}, scores=-table.scores, seconds=table.seconds)
    runs = [simulate_search(Search(t, RagSampler(seed=0), split_questions(t, 0)), 12) for t in (table, losses)]
    assert runs[0].rows == runs[1].rows
    assert runs[0].dev == pytest.approx(runs[1].dev)


def test_the_sampler_beats_chance_on_the_grid() -> None:
    table = grid()
    ours = np.mean(
        [simulate_search(Search(table, RagSampler(seed=s), split_questions(table, s)), 12).dev for s in range(8)],
        axis=0,
    )
    chance = np.mean(
        [simulate_search(Search(table, RandomSampler(seed=s), split_questions(table, s)), 12).dev for s in range(8)],
        axis=0,
    )
    assert ours[9] < 0.5 * chance[9]


def test_the_command_tells_draws_and_keeps_what_it_found(tmp_path, capsys) -> None:
    write_parquet(grid(), tmp_path / "grid.parquet")
    out = tmp_path / "out"
    (tmp_path / "name=here").mkdir()
    place = tmp_path / "name=here" / "grid.parquet"
    (tmp_path / "grid.parquet").rename(place)
    replay.main([str(place), "--out", str(out), "sampler=random,rag", "seeds=3", "budget=12"])
    told = capsys.readouterr().out
    assert "sampler=rag" in told
    assert "would have been enough" in told
    assert "30 configurations, 40 questions, nDCG@10; the whole grid" in told
    kept = json.loads((out / "replay.json").read_text())
    assert len(kept["runs"]) == 6
    assert "regret0" in (out / "replay.html").read_text()
    assert "| random |" in (out / "replay.md").read_text()
    assert "3 searches of each sampler" in (out / "replay.md").read_text()
    assert kept["rules"]["budget"] == 12


def test_more_than_a_table_holds_is_not_told(tmp_path, capsys) -> None:
    write_parquet(grid(), tmp_path / "grid.parquet")
    out = tmp_path / "out"
    replay.main([str(tmp_path / "grid.parquet"), "sampler=random", "seeds=2", "budget=100000", "--out", str(out)])
    assert "budget=100000: there are 30 configurations at most" in capsys.readouterr().err
    kept = json.loads((out / "replay.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert len(kept["runs"][0]["dev"]) == 30


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"maximize": "yes"}, "whether more is better"),
        ({"metric": None}, "a name and a metric"),
        ({"name": "a\nb"}, "in one line"),
        ({"seconds": [{"index": "long"}] * 30}, "the seconds of configuration 0"),
        ({"seconds": [{"index": -1.0}] * 30}, "the seconds of configuration 0"),
        ({"distributions": {"method": CategoricalDistribution(["bm25", "dense", "hybrid"])}}, "KeyError: 'top_k'"),
        ({"configurations": [{"method": "web"}] * 30}, "is not a recorded table"),
        ({"configurations": [{"method": "bm25", "top_k": 9}] * 30}, "top_k=9 is not among its values"),
        ({"configurations": [3] * 30}, "configuration 0 is none"),
    ],
)
def test_a_table_that_lies_is_refused(tmp_path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "t.parquet"
    write_parquet(replace(grid(), **{key: value for key, value in changes.items() if key != "seconds"}), path)
    if "seconds" in changes:
        rows = pq.read_table(path)
        told = pa.array([json.dumps(each) for each in changes["seconds"]])
        pq.write_table(rows.set_column(rows.column_names.index("seconds"), "seconds", told), path)
    with pytest.raises(StudyError, match=said):
        load_table(path)


def test_an_interrupt_is_said_and_leaves_no_process(tmp_path) -> None:
    write_parquet(grid(questions=400), tmp_path / "grid.parquet")
    words = [str(tmp_path / "grid.parquet"), "sampler=rag", "seeds=500", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "rag_opt.replay", *words]
    # Whoever starts the tests in the background has them ignore Ctrl-C.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        while "replays: " not in (line := process.stderr.readline()):
            assert line, "ended early"
        os.killpg(process.pid, signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(60) == 130
    assert "stopped; nothing was kept" in told
    assert "Traceback" not in told
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("some process of it is still there")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler=nobody"], "nobody"),
        (["speed=3"], "speed: no such key"),
        (["seeds=many"], "seeds=many: give a whole number of at least 1"),
        (["budget=0"], "budget=0: give a whole number of at least 1"),
        (["--out", "grid.parquet"], "--out grid.parquet: can't be written"),
        (["--out", "grid.parquet/below"], "--out grid.parquet/below: can't be written"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, monkeypatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(grid(), tmp_path / "grid.parquet")
    with pytest.raises(SystemExit) as ended:
        replay.main(["grid.parquet", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_table_is_said(tmp_path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 something else PAR1")
    with pytest.raises(StudyError, match=r"a\.parquet: is not a recorded table"):
        load_table(tmp_path / "a.parquet")
    with pytest.raises(StudyError, match="can't be read"):
        load_table(tmp_path / "gone.parquet")


@pytest.mark.integration
def test_a_study_becomes_a_table(animals, tmp_path) -> None:
    folder = animals_study(animals, tmp_path, "n_trials=14")
    table = build_study_table(folder)
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/study.db")
    complete = [t for t in study.trials if t.state.name == "COMPLETE" and "repeats" not in t.user_attrs]
    assert [dict(each) for each in table.configurations] == [t.params for t in complete]
    assert table.compute_values() == pytest.approx([t.value for t in complete])
    assert table.distributions["retriever.k1"] == FloatDistribution(0.4, 2.0)
    with pytest.raises(StudyError, match="a replay needs 10"):
        load_table(animals_study(animals, tmp_path, "n_trials=5", "name=few"))


def test_intervals_are_student_s() -> None:
    values = np.random.default_rng(0).normal(3, 2, 12)
    low, high = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert contest.student_interval(values) == pytest.approx((values.mean(), low, high))
    mean, *unknown = contest.student_interval(values[:1])
    assert mean == values[0]
    assert np.isnan(unknown).all()


def test_the_difference_is_paired_by_seed() -> None:
    def entry(sampler: str, regrets: list[float]) -> contest.Entry:
        runs = tuple(Run((0,), np.array([r]), np.array([r]), 1.0, 0.0, 1.0, 0.0, 0.0) for r in regrets)
        return contest.Entry("t", sampler, runs)

    held = contest.Contest((entry("a", [0.1, 0.3, 0.2]), entry("b", [0.2, 0.4, 0.3])), {"t": ""}, contest.Rules(3, 1))
    mean, low, high = contest.compare_samplers(held, "a", "b", 1)
    assert mean == pytest.approx(-0.1)
    assert low == pytest.approx(high)


@pytest.mark.parametrize("pruner", ["race", "median", "wilcoxon"])
def test_pruners_are_replayed_on_the_questions(pruner: str) -> None:
    """They spare questions, and what they stopped is never the best."""
    table, asked = grid(questions=240), []
    for seed in range(5):
        pruners = build_pruner(compose_config([f"pruner={pruner}"]))
        search = Search(table, RandomSampler(seed=seed), split_questions(table, seed), pruners)
        asked.append(simulate_search(search, 30).asked)
        kept = [row for row, value in zip(search.rows, search.values, strict=True) if value > -np.inf]
        assert kept
        if pruner == "race":
            assert int(table.compute_values(split_questions(table, seed).dev).argmax()) in kept
    assert 0.1 < min(asked) < 0.9


def test_two_tables_of_one_name_and_too_few_questions_are_said(tmp_path, capsys) -> None:
    write_parquet(grid(), tmp_path / "a.parquet")
    write_parquet(grid(), tmp_path / "b.parquet")
    with pytest.raises(SystemExit):
        replay.main([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
    assert "grid: two tables have this name" in capsys.readouterr().err
    write_parquet(grid(questions=6), tmp_path / "few.parquet")
    with pytest.raises(StudyError, match="measured for 6 questions, a replay needs 10"):
        load_table(tmp_path / "few.parquet")


def test_what_could_not_be_measured_makes_no_figure_unknown(tmp_path) -> None:
    table = grid()
    table.scores[3] = np.nan  # a configuration without a score
    table.scores[:, 5] = np.nan  # a question without one
    table.scores[::3, 6:12] = np.nan
    write_parquet(table, tmp_path / "gaps.parquet")
    found = load_table(tmp_path / "gaps.parquet")
    assert found.scores.shape == (29, 39)
    assert table.configurations[3] not in found.configurations
    for seed in range(5):
        for pruner in ("none", "race", "wilcoxon", "median"):
            pruners = build_pruner(compose_config([f"pruner={pruner}"]))
            run = simulate_search(Search(found, RagSampler(seed=seed), split_questions(found, seed, 2), pruners), 12)
            assert np.isfinite([*run.dev, *run.test, run.wall]).all()


def test_a_sampler_named_twice_is_one(tmp_path, capsys) -> None:
    write_parquet(grid(), tmp_path / "grid.parquet")
    out = tmp_path / "out"
    replay.main([str(tmp_path / "grid.parquet"), "sampler=random,random", "seeds=1", "budget=5", "--out", str(out)])
    assert len(json.loads((out / "replay.json").read_text())["runs"]) == 1
    assert "nan" not in capsys.readouterr().out


def test_a_file_with_scores_that_are_none_is_refused(tmp_path) -> None:
    table = grid()
    table.scores[0, 0] = np.inf
    write_parquet(table, tmp_path / "a.parquet")
    with pytest.raises(StudyError, match="is not a recorded table"):
        load_table(tmp_path / "a.parquet")


def test_what_a_race_ends_has_said_something() -> None:
    """Its reports are what the sampler learns from."""
    table = grid(questions=240)
    pruners = build_pruner(compose_config(["pruner=race"]))
    search = Search(table, RagSampler(seed=0), split_questions(table, 0), pruners)
    simulate_search(search, 20)
    pruned = [t for t in search.study.trials if t.state.name == "PRUNED"]
    assert pruned
    assert all(t.intermediate_values for t in pruned)


def test_the_seconds_of_what_is_computed_once_are_counted_once() -> None:
    """Two methods of one index: its seconds once; another index: again."""
    table = Table(
        name="t",
        metric="m",
        maximize=True,
        configurations=[{"splitter.size": size, "retriever": r} for size in (1, 2) for r in ("a", "b")],
        distributions={
            "splitter.size": CategoricalDistribution([1, 2]),
            "retriever": CategoricalDistribution(["a", "b"]),
        },
        scores=np.arange(48.0).reshape(4, 12),
        seconds=[{"indexing": 10.0}, {"indexing": 10.0}, {"indexing": 30.0}, {"indexing": 30.0}],
    )
    search = Search(table, RandomSampler(seed=0), split_questions(table, 0))
    run = simulate_search(search, 4)
    sizes: set[Any] = {table.configurations[row]["splitter.size"] for row in run.rows[: int(run.reached)]}
    assert run.wall == sum({1: 10.0, 2: 30.0}[size] for size in sizes)
    stored = simulate_search(Search(table, RandomSampler(seed=0), split_questions(table, 0), stored=[0]), 4)
    assert stored.rows == run.rows
    assert stored.wall == sum({1: 0.0, 2: 30.0}[size] for size in sizes)
