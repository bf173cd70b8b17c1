"""What metrics of other libraries ask models for: forecast, within the study's budget, and entered in its ledger.

Their calls are their own, so they are paid for after the fact, by the tokens that the library tells of: a Haystack
generator in its messages, MLflow in its feedback. What it does not tell of is estimated by words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.external.watch import count_usage
from rag_opt.components.llm.request import TOKENS_A_WORD
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.llm.client import Unpaid
from rag_opt.llm.replies import Reply
from rag_opt.records.keys import compute_key
from rag_opt.text.tokenization import count_tokens

if TYPE_CHECKING:
    from rag_opt.llm.client import LLMClient
    from rag_opt.metrics.own import Case
    from rag_opt.records.documents import Scores

METRIC = "metric "
"""Before a metric's name: the stage that its calls are paid under."""

WROTE = 60
"""Tokens that a verdict with its reason is taken to have, where none has come yet."""


JUDGE_KEYS = "mlflow.assessment.judge"
"""How MLflow's keys begin that tell what a judge has cost (AssessmentMetadataKey)."""

Price = Mapping[str, float] | None
"""Dollars a million tokens, {in, out}; None where not known."""


@dataclass(frozen=True)
class Meter:
    """The calls of one metric, which its model's price is paid for."""

    name: str
    llm: LLMClient
    price: Price

    @property
    def stage(self) -> str:
        """What its calls are entered under."""
        return f"{METRIC}{self.name}"

    def rehearse(self, cases: Sequence[Case]) -> Scores:
        """Count one call a case in place of making it: nan for each."""
        rehearsal = self.llm.rehearsal
        assert rehearsal is not None
        for case in cases:
            rehearsal.count_call(self.stage, kept=False)
            # Two configurations that answer alike are both asked about: nothing is kept of these calls.
            key = compute_key(self.stage, rehearsal.calls[self.stage])
            rehearsal.count_request(self.stage, key, Unpaid(estimate_case(case), WROTE, math.inf, self.compute_usd))
        return np.full(len(cases), np.nan)

    def pay(self, case: Case, tokens: tuple[int, int], seconds: float, usd: float | None = None) -> None:
        """Enter the calls about one case; tokens 0 where the library told nothing of them."""
        guessed = estimate_case(case)
        read, wrote = tokens if any(tokens) else (guessed, WROTE)
        paid = self.compute_usd(read, wrote) if usd is None else usd
        self.llm.record_payment(self.stage, Reply(None, read, wrote, seconds), paid, guessed)

    def compute_usd(self, tokens_in: float, tokens_out: float) -> float:
        """Dollars for so many tokens; nan without a price."""
        return math.nan if self.price is None else (tokens_in * self.price["in"] + tokens_out * self.price["out"]) / 1e6


def estimate_case(case: Case) -> int:
    """About how many tokens a model reads that is shown a case, instructions not counted."""
    texts = [case.question, case.answer or "", *case.references, *case.contexts]
    return int(TOKENS_A_WORD * sum(map(count_tokens, texts)))


@contextmanager
def meter_generator(generator: Any, meter: Meter, cases: Sequence[Case]) -> Iterator[None]:
    """Each call that a Haystack chat generator makes within is paid for, one a case in order.

    Raises BudgetSpentError at the end where nothing more might be paid for.
    """
    run, waiting, refused = generator.run, iter(cases), list[BudgetSpentError]()

    def metered(*args: Any, **inputs: Any) -> Any:
        try:
            meter.llm.check_budget()
        except BudgetSpentError as error:
            refused.append(error)
            raise
        start = time.perf_counter()
        found = run(*args, **inputs)
        # One that asks more often than there are cases is taken to ask about the last.
        meter.pay(next(waiting, cases[-1]), count_usage(found), time.perf_counter() - start)
        return found

    generator.run = metered
    try:
        yield
    finally:
        # From the instance, where it hid the method of the class.
        del generator.run
        # An evaluator takes it for a call that failed, and may go on without.
        if refused:
            raise refused[0]


def read_feedback(found: Any) -> tuple[tuple[int, int], float | None] | None:
    """The tokens, read and written, and the dollars (None: not told) of an MLflow feedback.

    None where no model was asked.
    """
    about = getattr(found, "metadata", None)
    if not isinstance(about, Mapping) or not any(str(key).startswith(JUDGE_KEYS) for key in about):
        return None
    # MLflow keeps such figures as texts.
    tokens = [int(float(about.get(f"mlflow.assessment.judge{name}Tokens") or 0)) for name in ("Input", "Output")]
    usd = about.get("mlflow.assessment.judgeCost")
    return (tokens[0], tokens[1]), None if usd is None else float(usd)
