"""What is noted of trials and studies beside their parameters and values: by attribute its name, form and default.

They are Optuna's user attributes: other tools and the studies of earlier versions know them by these names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, overload

from rag_opt.records.products import SPENT
from rag_opt.samplers.costs import ATTRIBUTE as SECONDS
from rag_opt.samplers.costs import STORED
from rag_opt.samplers.observations import INTERRUPTED, SO_FAR

T = TypeVar("T")
Timings = Sequence[tuple[Mapping[str, Any], Mapping[str, float]]]
"""Pairs of parameters and seconds by stage."""


class HasAttributes(Protocol):
    """A trial, a study, or what stands for one."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


class SetsAttributes(Protocol):
    """A trial or a study that is open."""

    def set_user_attr(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True)
class Attribute(Generic[T]):
    """One attribute: read from a record of attributes, written with `save`.

    `fits` says whether a value is such as is written; `default` is what it is where none was.
    """

    name: str
    fits: Callable[[Any], bool]
    default: T

    @overload
    def __get__(self, record: None, owner: type) -> Attribute[T]: ...
    @overload
    def __get__(self, record: Attributes, owner: type) -> T: ...
    def __get__(self, record: Attributes | None, owner: type) -> Attribute[T] | T:
        if record is None:
            return self
        # The default is the same object for all records: it is to be read only.
        found: T = record.given.get(self.name, self.default)
        return found

    def save(self, place: SetsAttributes, value: T) -> None:
        """Keep the value, in place of what is there."""
        place.set_user_attr(self.name, value)


@dataclass(frozen=True)
class Attributes:
    """The attributes of one trial or study as they stand in its database; what is not there has its default."""

    given: Mapping[str, Any]

    @classmethod
    def find_invalid(cls, given: Mapping[str, Any]) -> list[str]:
        """The names of the attributes whose values are not such as are written; others' attributes are no business."""
        known = [each for each in vars(cls).values() if isinstance(each, Attribute)]
        return [each.name for each in known if each.name in given and not each.fits(given[each.name])]


def is_number(value: Any) -> bool:
    """Whether it is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(is_number, value.values()))


def _is_number_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value.values()))


def _is_usage(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_number_mapping(each) and {*SPENT} <= {*each} for each in value.values()
    )


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_nested_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_mapping, value.values()))


def _is_timings(value: Any) -> bool:
    pairs = isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value)
    return pairs and all(_is_flat_mapping(params) and _is_number_mapping(seconds) for params, seconds in value)


def _is_flat_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and not any(isinstance(each, list | Mapping) for each in value.values())


def _is_true(value: Any) -> bool:
    return value is True


class TrialAttributes(Attributes):
    """What is noted of a trial."""

    origin = Attribute("origin", _is_text, "")
    """How its parameters were drawn (history.py); noted after the last one, a seed's when it is enqueued."""

    seed = Attribute[int | None]("seed", is_number, None)
    """Which of the configurations to begin with it is."""

    process = Attribute[Mapping[str, str]]("process", _is_text_mapping, {})
    """{"worker": its name among those at work, "crew": that of who started it, "mlflow": the crew's parent run}."""

    command = Attribute("command", _is_text, "")
    """What measures its configuration again."""

    metrics = Attribute[Mapping[str, float]]("metrics", _is_number_mapping, {})
    """The means of a complete trial, those that are finite."""

    seconds = Attribute[Mapping[str, float]](SECONDS, _is_number_mapping, {})
    """What a complete trial took, by stage."""

    usage = Attribute[Mapping[str, Mapping[str, float]]]("usage", _is_usage, {})
    """By stage its calls to models, stored replies counted like paid ones."""

    paid = Attribute[Mapping[str, float] | None]("paid", _is_number_mapping, None)
    """By stage how many of these calls were paid for; None where that was not noted."""

    coverage = Attribute[Mapping[str, float]]("coverage", _is_number_mapping, {})
    """By metric, or stage, the share that was measured, or served, where that is not all."""

    questions = Attribute[int | None]("questions", is_number, None)
    """How many questions a pruned trial was asked."""

    so_far = Attribute[list[float] | None](SO_FAR, _is_number_list, None)
    """The objectives' means when a trial of several was pruned."""

    repeats = Attribute[int | None]("repeats", is_number, None)
    """The number of the earlier trial that has measured this configuration; this one was not measured."""

    reason = Attribute[str | None]("reason", _is_text, None)
    """Why it failed, or was ended."""

    interrupted = Attribute(INTERRUPTED, _is_true, default=False)
    """Whether its process died, or it was ended from outside: another trial takes its place."""

    outage = Attribute("outage", _is_text, "")
    """Which failure of what surrounds the study has ended an interrupted trial (failures.py); "" for none."""

    given_up = Attribute("given_up", _is_true, default=False)
    """Whether its configuration has ended too many processes."""

    retries = Attribute[int | None]("retries", is_number, None)
    """The number of the trial of the same configuration that was ended before it."""

    deaths = Attribute("deaths", is_number, 0)
    """How many processes have died over this configuration so far."""

    earlier_deaths = Attribute("earlier_deaths", is_number, 0)
    """How many of these had died before this trial."""


class StudyAttributes(Attributes):
    """What is noted of a study."""

    fingerprints = Attribute[Mapping[str, str]]("rag_opt:fingerprints", _is_mapping, {})
    """What the study is made of (drift.py)."""

    parts = Attribute[Mapping[str, Mapping[str, str]]]("rag_opt:fingerprint_parts", _is_nested_mapping, {})
    """By fingerprint what it was made from, where that is more than one thing."""

    stored = Attribute[Timings | None](STORED, _is_timings, None)
    """What had been computed, and kept, before the study began, where the sampler counts seconds."""

    sampler_state = Attribute[Mapping[str, Any]]("rag_opt:sampler_state", _is_mapping, {})
    """Where the sampler stood before the latest trial was drawn."""

    exhausted = Attribute("rag_opt:exhausted", _is_text, "")
    """The class of a sampler that has said that every combination was tried."""

    settled = Attribute("rag_opt:settled", _is_text, "{}")
    """After how many trials the search was stopped, and why, as JSON (study/terminator.py)."""

    settled_by = Attribute[list[float] | None]("rag_opt:settled_by", _is_number_list, None)
    """The rule that stopped it, `after` and `share`; by another one the search goes on."""

    looks = Attribute[list[int]]("rag_opt:looks", _is_number_list, [])
    """After how many trials the unseen questions were looked at."""

    tests = Attribute[list[str] | None]("rag_opt:tests", _is_text_list, None)
    """What was tested on them: a key for each different choice, in order; None where an older version has looked."""

    forecast = Attribute[Mapping[str, float]]("rag_opt:forecast", _is_mapping, {})
    """What so many `trials` were expected to cost in all, told `at` a time: calls, tokens, and seconds from then on."""

    ledger = Attribute("rag_opt:ledger", _is_text, "")
    """The name under which the study's payments are entered."""

    report = Attribute("rag_opt:report_artifact", _is_text, "")
    """The report's page among the artifacts that optuna-dashboard shows."""

    @property
    def payments(self) -> dict[str, list[float]]:
        """By store what it has paid for: calls, tokens, dollars, seconds."""
        return {key.removeprefix(PAID): value for key, value in self.given.items() if key.startswith(PAID)}


# An attribute for each store: every machine writes its own sum, so none overwrites, or adds twice, another's payments.
PAID = "rag_opt:paid:"
"""Prefix of the attributes in which each store enters what it has paid for."""


def save_payment(study: SetsAttributes, store: str, spent: list[float]) -> None:
    """Keep what this store has paid for so far: [calls, tokens, dollars, seconds], in place of what it kept before."""
    study.set_user_attr(f"{PAID}{store}", spent)


def get_attributes(trial: HasAttributes) -> TrialAttributes:
    """What is noted of a trial."""
    return TrialAttributes(trial.user_attrs)


def get_study_attributes(study: HasAttributes) -> StudyAttributes:
    """What is noted of a study."""
    return StudyAttributes(study.user_attrs)
