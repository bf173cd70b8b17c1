"""Rounds of tuning a model again: the folders of their studies, and what each was begun with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rag_opt.production.registry import Registry, explain_failures
from rag_opt.system.permissions import replace_text

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

STATE, QUESTIONS, PAGE = "retune/state.json", "retune/questions.jsonl", "retune/questions.html"
RETUNED = "rag_opt.retuned"
"""The registered model's tag with the moment, in ms, up to which what people said was used."""


@dataclass(frozen=True)
class Round:
    """A study that tunes a version again, by what people said from `since` to `until`, in ms.

    `version` of `model` was `made` at a moment in ms, by which it is told from one of another registry; `corpus` stands
    for its documents.
    """

    model: str
    version: str
    made: int
    corpus: str
    since: int
    until: int
    folder: Path

    @property
    def questions(self) -> Path:
        return self.folder / QUESTIONS

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    @property
    def is_begun(self) -> bool:
        """Whether its study is under way, or has ended."""
        return (self.folder / STATE).is_file()

    def begin(self) -> None:
        """From now on the same command goes on with it."""
        if not self.is_begun:
            # The name alone: where the folder lies is told by where it is found.
            replace_text(self.folder / STATE, json.dumps({**asdict(self), "folder": self.folder.name}))

    def give_up(self) -> None:
        """Forget it, and the questions that it has: people may have deleted some."""
        # A kill in between leaves a round that is found again, by its questions, or a state that tells nobody's.
        for name in (PAGE, QUESTIONS, STATE):
            (self.folder / name).unlink(missing_ok=True)


def find_rounds(studies: Path, model: str) -> Iterator[Round]:
    """The rounds of a model that were begun, the first one first, of which the questions are still there."""
    numbered = ((_get_number(folder.name, model), folder) for folder in studies.glob("*/"))
    # By number: as text the tenth comes before the second.
    for _, folder in sorted((number, folder) for number, folder in numbered if number):
        try:
            found = Round(**{**json.loads((folder / STATE).read_text("utf-8")), "folder": folder})
        except (OSError, ValueError, TypeError):
            # There is none, or none that this version can read.
            continue
        if found.model == model and found.questions.is_file():
            yield found


def open_round(registry: Registry, model: ModelVersion, corpus: str, studies: Path, until: int) -> Round:
    """The round that was begun to tune this very version and has not decided, else a new one up to this moment in ms.

    A new one has a name under which no study was begun.
    """
    name = str(model.name)
    wanted = Round(
        name, str(model.version), int(model.creation_timestamp), corpus, find_seen(registry, name), until, studies
    )
    for found in find_rounds(studies, name):
        # One that has decided has moved `since` on (mark_seen), and is equal no more.
        if replace(found, until=until, folder=studies) == wanted:
            return found
    folders = (studies / f"{name}-retune-{number}" for number in count(1))
    free = next(folder for folder in folders if not ((folder / STATE).exists() or (folder / "study.db").exists()))
    return replace(wanted, folder=free)


def find_seen(registry: Registry, name: str) -> int:
    """The moment, in ms, up to which what people said has been used; 0 before the first time."""
    with explain_failures(registry.uri, name):
        return int(registry.client.get_registered_model(name).tags.get(RETUNED, 0))


def mark_seen(registry: Registry, found: Round) -> None:
    """What a round was begun with has decided: it is searched from now on, and fresh no more."""
    # Never back: what a later round has used is fresh no more.
    until = max(find_seen(registry, found.model), found.until)
    with explain_failures(registry.uri, found.model):
        registry.client.set_registered_model_tag(found.model, RETUNED, str(until))


def _get_number(folder: str, model: str) -> int:
    found = re.fullmatch(rf"{re.escape(model)}-retune-(\d+)", folder)
    return int(found[1]) if found else 0
