"""What a study found, as it leaves it in its folder (findings.json): with the trials all that a report needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna

from rag_opt.analysis.confirmation import Confirmation
from rag_opt.errors import StudyError
from rag_opt.records.scores import Latency
from rag_opt.storages.snapshot import StudySnapshot

FILE = "findings.json"


@dataclass(frozen=True)
class Loss:
    """A test question that the selected configuration answers worse than the baseline."""

    question: str
    gold: tuple[str, ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    score: float
    baseline: float


@dataclass(frozen=True)
class Ablation:
    """What a setting of the selected configuration brings: its score less that with the baseline's setting instead.

    On the questions that confirm, in the first objective's own unit, with its 95 % interval; nan where that was not
    measured.
    """

    setting: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Findings:
    """A finished study, without its trials; `signs` by target 1 where more is better, `stages` seconds by part.

    `url` is the storage's, its password hidden; `trials`, `documents`, `dev`, `test` are counts; `best` is the best dev
    score of the first target, None without one; `looks` how often the unseen questions were looked at; `paid` the
    calls, tokens and dollars that this study was charged for, `forecast` what was expected before its first trial;
    `noise` the judge's own: the "spread" of repeated grades, and its "share" of the variance of the selected one's
    difference ({} where it was not measured); `unfinished` are the trials that other processes were at; `others` the
    confirmations of the objectives after the first; `experiment` is the recommended configuration as an experiment
    file; `notes` what the finalists' stages said that bears on their scores; `means` the finalists' metrics on the
    unseen questions, by trial and name; `ablations` what each setting of the selected one brings.
    """

    name: str
    url: str
    signs: Mapping[str, float]
    cost: str
    trials: int
    best: float | None
    documents: int
    dev: int
    test: int
    confirmation: Confirmation | None
    latencies: Mapping[str, Latency]
    stages: Mapping[str, Mapping[str, float]]
    losses: tuple[Loss, ...]
    commands: Mapping[str, str]
    store: str
    reason: str
    mermaid: str
    config: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    space: str
    differences: tuple[float, ...] = ()
    looks: int = 1
    unfinished: tuple[int, ...] = ()
    paid: Mapping[str, float] = field(default_factory=dict)
    forecast: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    others: tuple[Confirmation, ...] = ()
    experiment: Mapping[str, Any] = field(default_factory=dict)
    ablations: tuple[Ablation, ...] = ()

    @property
    def confirmations(self) -> tuple[Confirmation, ...]:
        """What the unseen questions show, one an objective; () without a confirmation."""
        return () if self.confirmation is None else (self.confirmation, *self.others)

    @property
    def targets(self) -> tuple[str, ...]:
        # Signs are written in the order of the objectives, which JSON keeps.
        return tuple(self.signs)

    def get_snapshot(self, study: optuna.Study) -> StudySnapshot:
        """The study as it was when this was found: others may have added to it since."""
        return StudySnapshot(study, self.trials, self.unfinished)

    def write(self, folder: Path) -> None:
        """Keep the findings in the study's folder."""
        # Renamed into its place: whoever reads at this moment, or after a kill, finds the earlier findings or these.
        whole = folder / f".{FILE}"
        whole.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), "utf-8")
        whole.replace(folder / FILE)

    @property
    def unseen(self) -> str:
        """How many questions confirm, and how many of them differ where some are alike."""
        found = self.confirmation
        unit = "groups" if found and found.grouped else "different"
        apart = f" ({found.questions} {unit})" if found and 0 < found.questions < found.asked else ""
        if found is not None and found.crossfitted:
            return f"{self.test} questions, each judged by a choice made without it{apart}"
        return f"{self.test} questions never searched{apart}"

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """The findings of a study's folder; raises StudyError where it has none."""
        path = folder / FILE
        try:
            node = json.loads(path.read_text("utf-8"))
            confirmation = node["confirmation"] and Confirmation.from_dict(node["confirmation"])
            latencies = {name: Latency(**each) for name, each in node["latencies"].items()}
            losses = tuple(Loss(**{key: _to_tuple(value) for key, value in each.items()}) for each in node["losses"])
            changed = {
                "confirmation": confirmation,
                # Findings that an older version has left lack what was added since.
                "others": tuple(Confirmation.from_dict(each) for each in node.get("others", ())),
                "ablations": tuple(Ablation(**each) for each in node.get("ablations", ())),
                "latencies": latencies,
                "losses": losses,
                "name": str(node["name"]),
            }
            lists = {key: tuple(node.get(key, ())) for key in ("differences", "unfinished", "notes")}
            return cls(**{**node, **changed, **lists})
        except FileNotFoundError as error:
            raise StudyError(
                f"{folder}: no finished study: there is no {FILE} in it. A study writes it at its end; "
                "run it with python -m rag_opt.study"
            ) from error
        # The file may come from anyone: no mapping, values of other types, brackets nested without end.
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StudyError(
                f"{path}: can't be read ({error}); run the study's command again, it writes it anew"
            ) from error


def resolve_storage_url(folder: Path, given: str | None = None) -> str:
    """The URL of the folder's study, `given` or found; raises StudyError where that can't be known."""
    if given is not None:
        return given
    # That file is the study, wherever it was copied to; the address in the findings may lead to where it came from.
    if (folder / "study.db").is_file():
        return f"sqlite:///{(folder / 'study.db').as_posix()}"
    if not (folder / FILE).is_file():
        raise StudyError(f"{folder}: there is no study in it; name a study's folder, or its storage with --storage")
    url = Findings.read(folder).url
    # Findings keep an address without its password.
    if ":***@" in url:
        raise StudyError(f"{folder}: its storage {url} needs a password: name the whole URL with --storage")
    return url


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
