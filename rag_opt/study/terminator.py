"""Whether another trial can gain more than the questions tell apart, as Makarova et al. (2022) stop a search.

What may be gained is the expected improvement of the best configuration that was not measured, by the process that
sampler=rag draws with, whichever sampler the study has. What can be told apart is the standard error of the difference
between the best trial and those next to it, question by question.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna

from rag_opt.analysis import history
from rag_opt.analysis.paired import average_groups
from rag_opt.samplers import RagSampler
from rag_opt.storages.attributes import HasAttributes, StudyAttributes, TrialAttributes, get_study_attributes
from rag_opt.storages.trial_files import TrialFiles

if TYPE_CHECKING:
    from rag_opt.config.settings import Settings
    from rag_opt.records.documents import Ints, Scores
    from rag_opt.storages.snapshot import Trials

RIVALS = 5
"""Trials next to the best from which the noise is taken, those left out that score the same for every question."""

SPENT = 0.05
"""Of the noise: a gain below it is not worth a trial. Where conf/stopping/regret.yaml ends a search."""

CANDIDATES = 30
"""Of the best trials these are found among so many."""


@dataclass(frozen=True)
class ExpectedGain:
    """What another trial is expected to gain and how far apart two trials must be to be told apart, after `trials`."""

    trials: int
    gain: float
    noise: float

    def is_gain_below(self, share: float) -> bool:
        """Whether the gain is less than this share of the noise; False where either is not known."""
        return self.gain < share * self.noise

    def __str__(self) -> str:
        return (
            f"stopped after {self.trials} trials: another one was expected to gain {self.gain:.2g}, and the questions "
            f"tell {self.noise:.2g} apart"
        )


def estimate_noise(best: Scores, rivals: Sequence[Scores], groups: Ints | None = None) -> float:
    """The median standard error of the mean difference to the first RIVALS that differ; nan without one.

    Question by question, those of one of the `groups` as one; a rival that scores the same for every question says
    nothing.
    """
    apart = [best - rival for rival in rivals if len(rival) == len(best)]
    known = [~np.isnan(each) for each in apart]
    found = [
        average_groups(each[kept], None if groups is None else groups[kept])
        for each, kept in zip(apart, known, strict=True)
    ]
    errors = [float(each.std(ddof=1) / np.sqrt(len(each))) for each in found if len(each) > 1]
    return float(np.median([error for error in errors if error > 0][:RIVALS] or [np.nan]))


def estimate_gain(
    study: optuna.Study, now: Trials, target: str, settings: Settings, trials: int, groups: Ints | None
) -> ExpectedGain:
    """What can be said after so many trials, `target` being what is searched for; nan where it can't be known yet."""
    best = history.rank_candidates(now)[:CANDIDATES]
    files = TrialFiles(study, settings.folder)
    books = [files.load_scores(trial, [target]) for trial in best]
    scores = [book[target] for book in books if target in book]
    noise = estimate_noise(scores[0], scores[1:], groups) if scores else np.nan
    # Built here, since the study's own sampler may have no model of what is still to be gained.
    sampler = RagSampler(seed=settings.seed, ignored=TrialAttributes.interrupted.name)
    return ExpectedGain(trials, sampler.expected_gain(study), noise)


def format_prospect(found: ExpectedGain, share: float = SPENT) -> str:
    """Whether more trials are worth it: a gain above this share of what the questions tell apart; "" if unknown."""
    # A gain of 0 means that everything was measured.
    if np.isnan(found.gain) or np.isnan(found.noise) or not found.gain:
        return ""
    told = (
        f"another trial is expected to gain {found.gain:.2g}, and the searched questions tell {found.noise:.2g} apart"
    )
    if found.is_gain_below(share):
        return f"{told}: more questions would say more than more trials"
    return f"{told}: more trials may find more"


def should_terminate(
    study: optuna.Study, now: Trials, target: str, settings: Settings, trials: int, groups: Ints | None = None
) -> bool:
    """Whether the search is to end here, as conf/stopping says; kept in the study, with the reason, for all workers."""
    rule = settings.stopping
    known = get_study_attributes(study)
    if _parse_gain(known) is not None:
        if rule is not None and known.settled_by == [rule.after, rule.share]:
            return True
        # By another rule, or by none, the search goes on.
        StudyAttributes.settled.save(study, "{}")
    if rule is None or trials < rule.after:
        return False
    found = estimate_gain(study, now, target, settings, trials, groups)
    if found.is_gain_below(rule.share):
        # The rule first: a process that finds the search settled, but not by its own rule, takes that back.
        StudyAttributes.settled_by.save(study, [rule.after, rule.share])
        StudyAttributes.settled.save(study, json.dumps(asdict(found)))
    return found.is_gain_below(rule.share)


def format_stop_reason(study: HasAttributes) -> str:
    """Why a study's search ended early; "" where it did not, or went on."""
    found = _parse_gain(get_study_attributes(study))
    return "" if found is None else str(found)


def _parse_gain(attributes: StudyAttributes) -> ExpectedGain | None:
    try:
        # "{}", by which a reason is taken back, lacks the fields: a TypeError.
        found = ExpectedGain(**json.loads(str(attributes.settled)))
    except (TypeError, ValueError):
        return None
    # Whoever can write to the storage can write anything.
    return found if all(isinstance(value, int | float) for value in asdict(found).values()) else None
