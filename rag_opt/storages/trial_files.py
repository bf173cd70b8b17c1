"""What trials leave: files in the study's folder, for people and MLflow, and the same in its database, for all else.

Who shares a study's database may have a folder of their own; where a file lies is known here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from optuna.trial import FrozenTrial
from yaml import CSafeDumper

from rag_opt.config.settings import trial_folder
from rag_opt.storages import archive
from rag_opt.storages import scores as scorebook

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores
    from rag_opt.records.measured import Evaluation


@dataclass(frozen=True)
class TrialFiles:
    """The files of a study's trials; `shared` where all who share the database share the folder, too."""

    study: optuna.Study
    folder: Path
    shared: bool = True
    _left: dict[int, dict[str, bytes]] = field(default_factory=dict, repr=False)

    def write_config(self, number: int, config: Mapping[str, Any]) -> None:
        """Leave the configuration that a trial measures."""
        text = yaml.dump(config, Dumper=CSafeDumper, sort_keys=False, allow_unicode=True)
        self._made(number).joinpath("config.yaml").write_text(text, "utf-8")
        self._left[number] = {"config.yaml": text.encode()}

    def write(self, number: int, evaluation: Evaluation) -> None:
        """Leave all of a trial's scores."""
        body = scorebook.write(self.folder, number, evaluation, whole=not self.shared)
        self._left[number][scorebook.FILE] = body

    def write_part(
        self,
        number: int,
        ids: Sequence[str],
        scores: Mapping[str, Scores],
        retrieved: Sequence[Sequence[str]],
        answers: Sequence[str | None],
    ) -> None:
        """Leave the scores of the questions that were asked before a trial was stopped."""
        body = scorebook.write_part(self.folder, number, ids, scores, retrieved, answers, whole=not self.shared)
        self._left[number][scorebook.FILE] = body

    def rewrite(self, number: int, evaluation: Evaluation) -> None:
        """Leave, and keep, the scores of a trial that was measured again because they were lost."""
        self._made(number)
        scorebook.write(self.folder, number, evaluation)
        self.adopt(number)

    def keep(self, number: int) -> None:
        """Have the database hold what this process has written of a trial."""
        archive.put(self.study, number, self._left.pop(number, {}))

    def adopt(self, number: int) -> None:
        """Have the database hold what the folder has of a trial."""
        scorebook.keep(self.study, self.folder, number)

    def scores(self, trial: FrozenTrial, targets: Sequence[str]) -> Mapping[str, Scores]:
        """A complete trial's scores by metric, whose means are its values of these targets; {} where they are lost."""
        return scorebook.read(self.study, self.folder, trial, targets)

    def kept(self, number: int) -> scorebook.Book | None:
        """The scores of a trial that the database holds; None without any that can be read."""
        return scorebook.stored(self.study, number)

    def left(self, number: int) -> scorebook.Book | None:
        """The scores of a trial that the folder holds; None without any that can be read."""
        return scorebook.left(self.folder, number)

    def kept_numbers(self) -> set[int]:
        """The trials whose scores the database holds."""
        return archive.numbers(self.study)

    def fetch(self, number: int) -> None:
        """Have the folder hold a trial's files, where they are missing."""
        archive.fetch(self.study, self.folder, [number])

    def restore(self) -> None:
        """Have the folder say of all trials what the database says."""
        scorebook.restored(self.study, self.folder, range(len(self.study.get_trials(deepcopy=False))))

    def _made(self, number: int) -> Path:
        place = trial_folder(self.folder, number)
        place.mkdir(parents=True, exist_ok=True)
        return place
