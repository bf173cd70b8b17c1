"""The judge of a configuration: built, measured on labelled answers, and refused where it is too poor to decide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_opt.config.compose import load_prompt
from rag_opt.config.trust import build, to_plain
from rag_opt.errors import ConfigError
from rag_opt.judge.check import JudgeCheck, check_judge
from rag_opt.judge.grades import Grades, read_grades
from rag_opt.judge.labelled import build_labelled
from rag_opt.metrics.aspects import FIELDS
from rag_opt.metrics.catalogue import JUDGE, SPREAD
from rag_opt.metrics.judges import Judges

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rag_opt.components.resources import Resources
    from rag_opt.config.settings import Settings


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked and measured: verdicts a question, labelled questions (0: not measured), the least kappa.

    `trust`: it decides whatever its kappa, unless it grades everything alike.
    """

    repeats: int
    check: int
    floor: float
    trust: bool


def parse_judge_settings(config: DictConfig) -> JudgeSettings:
    """The settings of `judge`; raises ConfigError for values that are none."""
    node = to_plain(config.judge)
    for key, least in (("repeats", 1), ("check", 0)):
        given = node[key]
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise ConfigError(f"judge.{key}={given}: a whole number of at least {least} is expected")
    floor, trust = node["floor"], node["trust"]
    if isinstance(floor, bool) or not isinstance(floor, int | float) or not -1 <= floor <= 1:
        raise ConfigError(f"judge.floor={floor}: a kappa is expected, from -1 to 1")
    if not isinstance(trust, bool):
        raise ConfigError(f"judge.trust={trust}: true or false is expected")
    return JudgeSettings(node["repeats"], node["check"], float(floor), trust)


def build_judges(config: DictConfig, aspects: Iterable[str], repeats: int) -> Judges:
    """The judges of these aspects that a configuration describes; raises ConfigError."""
    node = to_plain(config.judge)
    chat: Any = build(node["chat"], to_plain(config.trusted_modules))
    try:
        return Judges(chat, node["model"], {each: load_prompt(node["prompts"][each]) for each in aspects}, repeats)
    except ValueError as error:
        raise ConfigError(f"judge: {error}") from error


def measure_judge(
    config: DictConfig, aspect: str, resources: Resources, questions: int, repeats: int = 1
) -> JudgeCheck:
    """The judge of one aspect measured on the labelled answers of so many packaged questions.

    Verdicts are kept like any reply: measured again it costs nothing. Raises ComponentError, BudgetSpentError.
    """
    judges = build_judges(config, [aspect], repeats).use_resources(resources)
    return check_judge(judges, aspect, build_labelled(aspect, questions))


def find_aspects(names: Iterable[str]) -> list[str]:
    """The aspects that metrics of these names are a judge's grades of, each once."""
    told = (name.removeprefix(JUDGE).removesuffix(SPREAD) for name in names if name.startswith(JUDGE))
    return [aspect for aspect in dict.fromkeys(told) if aspect in FIELDS]


def get_aspect(metric: str) -> str | None:
    """The aspect that a metric is a judge's grade of; None for any other metric, the judge's own noise too."""
    aspect = metric.removeprefix(JUDGE)
    return aspect if metric.startswith(JUDGE) and aspect in FIELDS else None


def read_peoples_grades(config: DictConfig, settings: Settings) -> Grades:
    """What `judge.labels` holds, {} where none are named; raises ConfigError or DatasetError."""
    path = to_plain(config.judge.labels)
    if path is None:
        return {}
    if settings.crossfits:
        raise ConfigError(
            "judge.labels: people's grades correct the judge's on questions that were kept from the search, and here "
            "all are searched; add confirmation.method=split"
        )
    return read_grades(str(path))
