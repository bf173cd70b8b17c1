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

from rag_opt.config.settings import get_trial_folder
from rag_opt.storages import archive
from rag_opt.storages import scores as scorebook

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores
    from rag_opt.records.scores import Evaluation


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
        self._make_folder(number).joinpath("config.yaml").write_text(text, "utf-8")
        self._left[number] = {"config.yaml": text.encode()}

    def write_scores(self, number: int, evaluation: Evaluation) -> None:
        """Leave all of a trial's scores."""
        # What was retrieved is most of the file and nothing is computed from it: the database has it only where others
        # lack the folder.
        body = scorebook.write_scores(self.folder, number, evaluation, whole=not self.shared)
        self._left[number][scorebook.FILE] = body

    def write_partial(
        self,
        number: int,
        ids: Sequence[str],
        scores: Mapping[str, Scores],
        retrieved: Sequence[Sequence[str]],
        answers: Sequence[str | None],
    ) -> None:
        """Leave the scores of the questions that were asked before a trial was stopped."""
        body = scorebook.write_partial(self.folder, number, ids, scores, retrieved, answers, whole=not self.shared)
        self._left[number][scorebook.FILE] = body

    def rewrite_scores(self, number: int, evaluation: Evaluation) -> None:
        """Leave, and keep, the scores of a trial that was measured again because they were lost."""
        self._make_folder(number)
        scorebook.write_scores(self.folder, number, evaluation)
        self.import_files(number)

    def store_trial(self, number: int) -> None:
        """Have the database hold what this process has written of a trial."""
        # Called before the trial is told: a trial that counts has its scores in the database.
        archive.store_files(self.study, number, self._left.pop(number, {}))

    def import_files(self, number: int) -> None:
        """Have the database hold what the folder has of a trial."""
        scorebook.import_scores(self.study, self.folder, number)

    def load_scores(self, trial: FrozenTrial, targets: Sequence[str]) -> Mapping[str, Scores]:
        """A complete trial's scores by metric, whose means are its values of these targets; {} where they are lost.

        float64, one a question in the order in which they were asked, nan where it could not be measured.
        """
        return scorebook.read_scores(self.study, self.folder, trial, targets)

    def load_book(self, number: int) -> scorebook.Book | None:
        """The scores of a trial that the database holds; None without any that can be read."""
        return scorebook.load_book(self.study, number)

    def read_book_file(self, number: int) -> scorebook.Book | None:
        """The scores of a trial that the folder holds; None without any that can be read."""
        return scorebook.read_book_file(self.folder, number)

    def get_stored_numbers(self) -> set[int]:
        """The trials whose scores the database holds."""
        return archive.get_trial_numbers(self.study)

    def fetch(self, number: int) -> None:
        """Have the folder hold a trial's files, where they are missing."""
        archive.fetch_files(self.study, self.folder, [number])

    def restore(self) -> None:
        """Have the folder say of all trials what the database says."""
        scorebook.restore_files(self.study, self.folder, range(len(self.study.get_trials(deepcopy=False))))

    def _make_folder(self, number: int) -> Path:
        place = get_trial_folder(self.folder, number)
        place.mkdir(parents=True, exist_ok=True)
        return place
