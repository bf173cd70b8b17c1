"""Races: what is dropped, what is spared, and that a trial is dropped only where it loses in every objective."""

import numpy as np
import pytest

from rag_opt.errors import ConfigError
from rag_opt.study.racing import Race

UP = {"nDCG": 1.0}


def study(generator, race: Race, questions: int, noise: float, spread: float = 0.05) -> tuple[bool, float]:
    """40 configurations in random order; whether the true best was dropped, and the share of questions asked."""
    quality = generator.normal(0, spread, 40)
    difficulty = generator.normal(0.6, 0.25, questions)
    scores = np.clip(difficulty[:, None] + quality + generator.normal(0, noise, (questions, 40)), 0, 1)
    looks = np.linspace(0, questions, 11).astype(int)[1:-1]
    asked, dropped, best = 0, False, None
    for trial in range(40):
        theirs = None if best is None else {"nDCG": scores[:, best]}
        end = next((n for n in looks if theirs and race.is_dominated({"nDCG": scores[:n, trial]}, [theirs], UP)), None)
        asked += end or questions
        if end is not None:
            dropped |= trial == quality.argmax()
        elif best is None or scores[:, trial].mean() > scores[:, best].mean():
            best = trial
    return dropped, asked / (40 * questions)


def test_at_low_noise_30_percent_are_spared_and_the_best_stays_in_97_of_100_studies() -> None:
    generator = np.random.default_rng(0)
    found = [study(generator, Race(), 200, 0.1) for _ in range(200)]
    assert np.mean([dropped for dropped, _ in found]) <= 0.03
    assert np.mean([asked for _, asked in found]) <= 0.7


def test_at_high_noise_the_best_stays_in_97_of_100_studies() -> None:
    generator = np.random.default_rng(1)
    assert np.mean([study(generator, Race(), 200, 0.3)[0] for _ in range(200)]) <= 0.03


def test_looking_often_at_equals_stops_them_seldom() -> None:
    """Over 100 looks a trial as good as its rival is stopped in at most `alpha` of all cases (and some sampling)."""
    generator, race = np.random.default_rng(2), Race(alpha=0.05)
    stopped = 0
    for _ in range(300):
        ours, theirs = generator.uniform(0, 1, (2, 500))
        stopped += any(race.is_dominated({"nDCG": ours[:n]}, [{"nDCG": theirs}], UP) for n in range(20, 500, 5))
    assert stopped <= 0.05 * 300 + 8


def test_it_can_lose() -> None:
    ours, theirs = np.linspace(0.1, 0.2, 60), np.linspace(0.7, 0.8, 60)
    assert Race().is_dominated({"nDCG": ours}, [{"nDCG": theirs}], UP)
    assert not Race().is_dominated({"nDCG": theirs}, [{"nDCG": ours}], UP)
    assert not Race().is_dominated({"nDCG": ours[:19]}, [{"nDCG": theirs}], UP)


def test_of_several_objectives_all_must_be_lost() -> None:
    good, bad = np.linspace(0.7, 0.8, 60), np.linspace(0.1, 0.3, 60)
    both = {"nDCG": 1.0, "tokens": -1.0}
    race = Race()
    assert race.is_dominated({"nDCG": bad, "tokens": good}, [{"nDCG": good, "tokens": bad}], both)
    assert not race.is_dominated({"nDCG": bad, "tokens": bad}, [{"nDCG": good, "tokens": good}], both)
    # Differences that are all the same are no evidence.
    assert not race.is_dominated({"nDCG": bad, "tokens": bad}, [{"nDCG": good, "tokens": bad}], both)


def test_with_several_objectives_one_that_is_better_in_few_questions_stays() -> None:
    """Better in 8 % of the questions, a little more tokens: dominated by nothing, so stopped in at most 2 % of cases."""
    generator, race, stopped = np.random.default_rng(4), Race(), 0
    for _ in range(300):
        tokens = generator.uniform(400, 600, 200)
        theirs = {"nDCG": generator.choice([0.0, 0.5, 1.0], 200), "tokens": tokens}
        gain = np.where(generator.random(200) < 0.08, 0.3, 0.0)
        ours = {"nDCG": theirs["nDCG"] + gain, "tokens": tokens + generator.uniform(5, 15, 200)}
        signs = {"nDCG": 1.0, "tokens": -1.0}
        looks = ({name: values[:n] for name, values in ours.items()} for n in range(20, 200, 20))
        stopped += any(race.is_dominated(look, [theirs], signs) for look in looks)
    assert stopped <= 6


def test_of_many_equals_few_are_stopped_though_their_rival_is_flattered() -> None:
    generator, race = np.random.default_rng(6), Race()
    stopped = [0]
    for _ in range(20):
        scores = np.clip(generator.normal(0.6, 0.25, (200, 1)) + generator.normal(0, 0.2, (200, 60)), 0, 1)
        best = 0
        for trial in range(1, 60):
            rival = [{"nDCG": scores[:, best]}]
            lost = any(race.is_dominated({"nDCG": scores[:n, trial]}, rival, UP) for n in range(20, 200, 20))
            stopped.append(int(lost))
            best = trial if not lost and scores[:, trial].mean() > scores[:, best].mean() else best
    assert np.mean(stopped) <= 0.05


def test_unmeasured_questions_do_not_count() -> None:
    ours, theirs = np.linspace(0.1, 0.2, 60), np.linspace(0.7, 0.8, 60)
    ours[:50] = np.nan
    assert not Race().is_dominated({"nDCG": ours}, [{"nDCG": theirs}], UP)


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"alpha": 1}, {"least": 1}], ids=str)
def test_what_makes_no_sense_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match="pruner: "):
        Race(**wrong)


def test_a_pruner_that_can_stop_nothing_is_said_before_the_first_trial(animals, said, tmp_path) -> None:
    from rag_opt.study.plan import build_plan

    words = [*animals, f"store.path={tmp_path}/store", f"studies_dir={tmp_path}/studies"]
    two = "objective.metrics=[nDCG@10,tokens]"
    for more in ([two, "pruner=race"], [two, "pruner=none"], ["pruner=median"]):
        build_plan([*words, *more])
    assert not [line for line in said() if line.startswith("pruner")]
    build_plan([*words, two, "pruner=median"])
    assert "pruner: MedianPruner stops no trial of several objectives (nDCG@10, tokens); pruner=race does" in said()


def test_copies_of_a_question_count_as_one() -> None:
    ours, theirs = np.zeros(60), np.linspace(0.1, 1.0, 60)
    assert Race().is_dominated({"nDCG": ours}, [{"nDCG": theirs}], UP, np.arange(60))
    # Sixty answers to ten questions are fewer than what a race begins with.
    assert not Race().is_dominated({"nDCG": ours}, [{"nDCG": theirs}], UP, np.repeat(np.arange(10), 6))
    some = {"nDCG": np.where(np.arange(60) % 7 == 0, np.nan, ours)}
    assert Race().is_dominated(some, [{"nDCG": theirs}], UP, np.arange(100))
