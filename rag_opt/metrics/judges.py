"""Answers and contexts graded by a language model, 1 to 5.

A verdict that can't be read is asked for again, then missing. Verdicts are kept by the judge, its prompt and what it
was shown, so the same thing is judged once. With `repeats` the judge is asked so many times, each with another seed:
the mean is the grade, the spread is the judge's own noise. A judge that gives every answer the same grade is shown a
right and a wrong one: if it can't tell these apart, its grades measure nothing and are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.llm.prompts import Prompt, build_messages, check_prompt, number_texts
from rag_opt.components.llm.reply_text import parse_integer
from rag_opt.components.llm.request import Request, Sampling, check_model
from rag_opt.metrics.aspects import BEST, FIELDS, WORST, Shown
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.components.llm.chat import Chat
    from rag_opt.components.llm.talks import Talk
    from rag_opt.components.resources import Resources
    from rag_opt.records.documents import Scores
    from rag_opt.records.products import Usage

SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "integer", "minimum": WORST, "maximum": BEST}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}


SAME = 10
"""Equal grades, and no other, after which a judge is put to the test."""

QUESTION, RIGHT, WRONG = "What is the capital of France?", "Paris is the capital of France.", "Bananas are yellow."
TEST = tuple(Shown(QUESTION, (RIGHT,), said, (RIGHT,)) for said in (RIGHT, WRONG))
READING_TEST = tuple(Shown(QUESTION, (RIGHT,), RIGHT, (said,)) for said in (RIGHT, WRONG))
"""The same for a judge of documents."""


@dataclass(frozen=True)
class Verdicts:
    """Per question the mean grade and its standard deviation over the repeats (nan: not measured), and their cost."""

    grades: Scores
    spread: Scores
    usage: Usage


@dataclass(frozen=True)
class Judges:
    """A language model as a judge; `prompts` by aspect, `repeats` verdicts a question."""

    chat: Chat
    model: str
    prompts: Mapping[str, Prompt]
    repeats: int

    def __post_init__(self) -> None:
        check_model(self.model)
        for aspect, prompt in self.prompts.items():
            check_prompt(prompt, {"user": FIELDS[aspect]})

    def use_resources(self, resources: Resources) -> Judges:
        """These judges at work with these resources, and with no memory of failed calls."""
        # A clone, since a chat that has failed too often in a row is given up, and that must end with its trial.
        chat = self.chat.clone()
        chat.use(resources)
        return replace(self, chat=chat)

    def compute_version(self, aspect: str) -> str:
        """The hash of all that a grade depends on beside what is judged."""
        return compute_key(self.chat.fingerprint, self.model, dict(self.prompts[aspect]), self.repeats)

    def grade_aspect(self, aspect: str, shown: Sequence[Shown]) -> Verdicts:
        """The grades of one aspect."""
        talks = self.chat.map_items(f"judge {aspect}", lambda talk, one: self._grade_repeats(talk, aspect, one), shown)
        means = [np.mean(found) if found else np.nan for found in talks.results]
        # The repeats are a sample of what the judge may say, hence ddof=1; of one alone there is no spread.
        spread = [np.std(found, ddof=1) if len(found) > 1 else np.nan for found in talks.results]
        return Verdicts(np.array(means, np.float64), np.array(spread, np.float64), talks.usage)

    def grade_each(self, aspect: str, shown: Sequence[Shown], stage: str) -> list[list[int]]:
        """Every repeat's grade of each, [] where not all could be had, paid under this stage."""
        return self.chat.map_items(stage, lambda talk, one: self._grade_repeats(talk, aspect, one), shown).results

    def mask_constant(self, aspect: str, found: Verdicts, earlier: list[float]) -> Verdicts:
        """The verdicts, unmeasured where the judge has given nothing but one grade and would give it to anything.

        `earlier` are the grades of this evaluation so far, to which these are added.
        """
        earlier += [float(grade) for grade in found.grades if not np.isnan(grade)]
        # A rehearsal has every judge say the same example, which proves nothing of it.
        if len(earlier) < SAME or len({*earlier}) > 1 or self.chat.llm.rehearsal is not None:
            return found
        right, wrong = self.grade_aspect(aspect, _get_test(aspect)).grades
        # As a negation, so that nan keeps the grades: a test that brought no verdict says nothing of the judge.
        if not wrong >= right:
            return found
        why = (
            f"{self.model} gives {earlier[0]:g} to whatever it is shown, also {right:g} to a right and {wrong:g} to a "
            "wrong one, so its grades measure nothing; choose another judge.model, or another objective"
        )
        self.chat.llm.troubles[f"judge {aspect}"] = why
        self.chat.notices.report_once(f"judge {aspect}: {why}")
        nothing = np.full(len(found.grades), np.nan)
        return replace(found, grades=nothing, spread=nothing)

    def explain_blind(self, aspect: str) -> str:
        """Why its grades measure nothing, "" where it can tell a right answer from a wrong one, or says nothing."""
        right, wrong = self.grade_aspect(aspect, _get_test(aspect)).grades
        if not wrong >= right:
            return ""
        return (
            f"as a judge of {aspect} it gives {right:g} to a right answer and {wrong:g} to a wrong one, so its grades "
            "measure nothing; choose another judge.model, or another objective"
        )

    def _grade_repeats(self, talk: Talk, aspect: str, shown: Shown) -> list[int]:
        """One grade a repeat; [] unless all could be had."""
        asked = _build_messages(self.prompts[aspect], aspect, shown)
        if asked is None:
            return []
        grades = []
        for repeat in range(self.repeats):
            # Each repeat has seeds of its own, so that the second attempt of one is not the first of the next.
            request = Request(
                self.model, asked, Sampling(max_tokens=256), SCHEMA, attempt=100 * repeat, example=EXAMPLE
            )
            grade = talk.ask_json(request, parse_judge_grade)
            if grade is None:
                return []
            grades.append(grade)
        return grades


EXAMPLE = '{"score": 3, "reason": "It has half of what matters and leaves out the rest."}'


def _get_test(aspect: str) -> Sequence[Shown]:
    """What shows whether a judge can tell right from wrong, the right one first."""
    return TEST if "answer" in FIELDS[aspect] else READING_TEST


def _build_messages(prompt: Prompt, aspect: str, shown: Shown) -> Any:
    """What the judge is told; None where there is nothing to judge. Of several references any one is right."""
    if (aspect == "correctness" and not shown.references) or ("answer" in FIELDS[aspect] and shown.answer is None):
        return None
    values = {
        "question": shown.question,
        "reference": " / or: ".join(shown.references),
        "answer": shown.answer or "",
        "documents": number_texts(shown.documents),
    }
    return build_messages(prompt, **{name: values[name] for name in FIELDS[aspect]})


def parse_judge_grade(said: Any) -> int | None:
    """The grade of {"score": 1 … 5, …}; None where it is anything else."""
    found = parse_integer(said.get("score")) if isinstance(said, dict) else None
    return found if found is not None and WORST <= found <= BEST else None
