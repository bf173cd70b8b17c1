"""What the finished trials of a study say: which count, which are best, how they were drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from rag_opt.config.overrides import to_config_values
from rag_opt.llm.replies import Expenses
from rag_opt.samplers import RagSampler
from rag_opt.storages.attributes import TrialAttributes, get_attributes
from rag_opt.storages.snapshot import FINISHED, Trials
from rag_opt.storages.snapshot import is_sampled as drawn_whole

if TYPE_CHECKING:
    from rag_opt.config.search_space import Value

BASELINE = "baseline"
SEED = "seed"
MODEL, MIXED, SEQUENCE, RANDOM = "model", "model and random", "sequence", "random"
"""How a sampler drew: by what it learnt, partly so, from a sequence made to cover the space, or at random."""

SEQUENCES = (optuna.samplers.QMCSampler, optuna.samplers.BruteForceSampler, optuna.samplers.GridSampler)


def get_measured(study: Trials, *states: TrialState) -> list[FrozenTrial]:
    """The trials in these states that were measured: repeats of earlier ones are left out."""
    return [t for t in study.get_trials(deepcopy=False, states=states) if get_attributes(t).repeats is None]


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether the trial keeps every constraint."""
    # A constraint that could not be measured is inf, and so is not kept.
    return all(value <= 0 for value in trial.constraints.values())


def rank_candidates(study: Trials) -> list[FrozenTrial]:
    """The complete trials that keep the constraints, best first by the first objective, then by number."""
    # A pruned trial's mean is of some questions, and must never compete with that of all.
    return rank_trials(study, [trial for trial in get_measured(study, TrialState.COMPLETE) if is_feasible(trial)])


def get_sign(direction: StudyDirection) -> float:
    """1 where more is better, -1 where less is."""
    return 1.0 if direction == StudyDirection.MAXIMIZE else -1.0


def rank_trials(study: Trials, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials by their first objective, best first, then by number."""
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    return sorted(trials, key=lambda trial: (sign * trial.values[0], trial.number))


def find_front(study: Trials) -> list[FrozenTrial]:
    """Of the candidates the best, the first found among equals: one, or the Pareto front of several objectives."""
    if len(study.directions) == 1:
        return rank_candidates(study)[:1]
    return select_undominated(rank_candidates(study), study.directions)


def select_undominated(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The complete trials than which no other is at least as good in every objective and better in one."""
    signs = np.array([1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in directions])
    goods = np.array([trial.values for trial in trials], np.float64).reshape(len(trials), len(signs)) * signs
    return [
        trial
        for trial, own in zip(trials, goods, strict=True)
        if not ((goods >= own).all(axis=1) & (goods > own).any(axis=1)).any()
    ]


def find_knee(study: Trials, front: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The point of a front farthest beyond the plane through its ends; None for fewer than three points.

    The objectives are scaled to the front's own range (Das 1999, Structural Optimization 18:107).
    """
    if len(front) < 3:
        return None
    signs = [1.0 if direction == StudyDirection.MAXIMIZE else -1.0 for direction in study.directions]
    goods = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in front]
    ends = [(min(column), max(column)) for column in zip(*goods, strict=True)]
    # For two objectives the line through the ends is where these sums are equal, so the greatest is farthest from it.
    scaled = [sum((v - low) / ((high - low) or 1.0) for v, (low, high) in zip(row, ends, strict=True)) for row in goods]
    return front[max(range(len(front)), key=lambda place: scaled[place])]


def find_front_marks(study: Trials, targets: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """By trial its place on the front of several objectives: best in which, its knee; {} for one objective."""
    front = find_front(study)
    if len(study.directions) == 1 or not front:
        return {}
    found: dict[int, tuple[str, ...]] = {}
    for place, (name, direction) in enumerate(zip(targets, study.directions, strict=True)):
        sign = get_sign(direction)
        end = max(front, key=lambda trial: sign * trial.values[place])
        found[end.number] = (*found.get(end.number, ()), f"best {name}")
    knee = find_knee(study, front)
    return found if knee is None else {**found, knee.number: (*found.get(knee.number, ()), "knee")}


def find_baseline(study: Trials) -> FrozenTrial | None:
    """The baseline's complete trial; None when it failed."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # By its origin, not as trial 0: one that was interrupted is measured again under another number.
    return next((trial for trial in complete if get_attributes(trial).origin == BASELINE), None)


def find_measured(study: Trials, values: Mapping[str, Value]) -> FrozenTrial | None:
    """The trial that has measured these values already, to its end or to where it was stopped; None without one.

    A configuration that was given up counts as measured, and so does one that another process is measuring just now.
    """
    # `study` has to be older than the trial that asks, which would find itself among the running ones.
    wanted = _make_key(values)
    known = get_measured(study, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
    for trial in known:
        failed = trial.state == TrialState.FAIL and not get_attributes(trial).given_up
        if not failed and _make_key(to_config_values(trial.params)) == wanted:
            return trial
    return None


def count_tried(study: Trials) -> int:
    """How many different configurations were drawn, whatever came of them; those of stopped processes don't count."""
    return len(_get_sampled(study))


def select_untried(study: Trials, configurations: Iterable[dict[str, Value]]) -> list[dict[str, Value]]:
    """Of these configurations those that were not drawn."""
    known = _get_sampled(study)
    return [values for values in configurations if _make_key(values) not in known]


def _get_sampled(study: Trials) -> set[str]:
    trials = study.get_trials(deepcopy=False)
    whole = (trial for trial in trials if not get_attributes(trial).interrupted and drawn_whole(trial))
    return {_make_key(to_config_values(trial.params)) for trial in whole}


def _make_key(values: Mapping[str, Value]) -> str:
    # 1, 1.0 and True are equal in Python and different words of a configuration.
    return repr(sorted(values.items()))


def drop_repeats(study: Trials) -> optuna.Study:
    """The study in memory, each configuration once: repeats would count for more than they say.

    Trials keep their numbers; what repeats another, or is not finished, stands there as one that failed.
    """
    copy = optuna.create_study(directions=study.directions)
    measured = {trial.number for trial in get_measured(study, *FINISHED)}
    # Optuna numbers trials as they come, so what is left out needs something in its place.
    nothing = optuna.trial.create_trial(state=TrialState.FAIL)
    copy.add_trials([t if t.number in measured else nothing for t in study.get_trials(deepcopy=False)])
    return copy


def count_repeats(study: Trials) -> int:
    """How many trials repeated another one, and so were not measured."""
    return sum(
        noted.repeats is not None for noted in _iterate_attributes(study.get_trials(deepcopy=False, states=FINISHED))
    )


def count_latest_repeats(study: Trials) -> int:
    """How many of the latest trials in a row repeated an earlier one."""
    latest = reversed(study.get_trials(deepcopy=False, states=FINISHED))
    return sum(1 for _ in takewhile(lambda noted: noted.repeats is not None, _iterate_attributes(latest)))


def _iterate_attributes(trials: Iterable[FrozenTrial]) -> Iterator[TrialAttributes]:
    """What is noted of these trials, less those that were ended from outside."""
    return (noted for noted in map(get_attributes, trials) if not noted.interrupted)


def find_origin(sampler: Any, trial: optuna.Trial) -> str:
    """How the sampler drew this trial's parameters."""
    together = set(trial.relative_params)
    # Before it has a model the rag sampler draws what was tried least, parameter by parameter.
    if isinstance(sampler, SEQUENCES) or (not together and isinstance(sampler, RagSampler)):
        return SEQUENCE
    if not together:
        return RANDOM
    return MODEL if together >= set(trial.params) else MIXED


def count_origins(study: Trials) -> dict[str, int]:
    """How many trials were drawn in which way, the repeats among them counted apart."""
    counted = _iterate_attributes(study.get_trials(deepcopy=False, states=FINISHED))
    repeated = TrialAttributes.repeats.name
    return dict(Counter(repeated if noted.repeats is not None else noted.origin or RANDOM for noted in counted))


def count_outcomes(study: Trials) -> dict[str, int]:
    """How many trials are complete, pruned, failed, repeated, interrupted, lost to an outage and given up."""
    trials = study.get_trials(deepcopy=False)
    noted = [get_attributes(trial) for trial in trials]
    apart = [each.repeats is not None or each.interrupted or each.given_up for each in noted]
    states = Counter(trial.state for trial, other in zip(trials, apart, strict=True) if not other)
    return {
        "complete": states[TrialState.COMPLETE],
        "pruned": states[TrialState.PRUNED],
        "failed": states[TrialState.FAIL],
        "repeated": count_repeats(study),
        "interrupted": sum(each.interrupted and not each.outage for each in noted),
        "lost": sum(bool(each.outage) for each in noted),
        "given up": sum(each.given_up for each in noted),
    }


def estimate_confirmation(study: Trials, ties: int, dev: int, test: int) -> Expenses:
    """What confirming may cost at most, as the complete trials' means say: best, recommended, tied ones, baseline.

    Of `dev` and `test` questions; nothing before a trial is complete. Of each stage's calls such a share counts as
    that trial had to pay for which paid for most: what other studies have asked already costs nothing.
    """
    complete = get_measured(study, TrialState.COMPLETE)
    if not complete:
        return Expenses()
    # The three are the best, the recommended one and the baseline.
    share = min(len(complete), 3 + ties) * test / (dev * len(complete))
    new = _find_max_shares(complete)
    stages = [(new[name], spent) for trial in complete for name, spent in get_attributes(trial).usage.items()]
    calls = sum(part * spent["calls"] for part, spent in stages)
    tokens = sum(part * (spent["tokens_in"] + spent["tokens_out"]) for part, spent in stages)
    # What has no price is left out: a budget in dollars is refused where a model lacks one.
    dollars = sum(part * spent["usd"] for part, spent in stages if not math.isnan(spent["usd"]))
    seconds = sum(trial.duration.total_seconds() for trial in complete if trial.duration is not None)
    return Expenses(share * calls, share * tokens, share * dollars, share * seconds)


def _find_max_shares(complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """By stage the greatest share of a trial's calls that had to be paid for; 1 where that was not noted."""
    found: dict[str, float] = {}
    for noted in map(get_attributes, complete):
        for stage, spent in noted.usage.items():
            paid = spent["calls"] if noted.paid is None else noted.paid.get(stage, 0)
            # The greatest share, since what is put aside for the confirmation has to be enough.
            found[stage] = max(found.get(stage, 0.0), min(1.0, paid / spent["calls"]) if spent["calls"] else 0.0)
    return found


def compute_paid_share(study: Trials) -> dict[str, float]:
    """By stage the share of the calls of the later half of the complete trials that had to be paid for.

    {} before four are complete: the first trials repeat little of what others have asked.
    """
    complete = get_measured(study, TrialState.COMPLETE)
    if len(complete) < 4:
        return {}
    asked: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    for noted in map(get_attributes, complete[len(complete) // 2 :]):
        calls = {stage: spent["calls"] for stage, spent in noted.usage.items()}
        asked.update(calls)
        # Where it was not noted all of them may have been paid for, as in `_find_max_shares`.
        paid.update(calls if noted.paid is None else noted.paid)
    return {stage: min(1.0, paid[stage] / count) for stage, count in asked.items() if count}


def sum_seconds(study: Trials) -> float:
    """The seconds that all trials took together, whatever became of them; of one under way nothing counts."""
    spans = [trial.duration for trial in study.get_trials(deepcopy=False) if trial.duration is not None]
    return sum(span.total_seconds() for span in spans)
