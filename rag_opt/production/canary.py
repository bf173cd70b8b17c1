"""A challenger that answers a part of what is asked: whether it may become the champion, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_opt.errors import ModelError
from rag_opt.production.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    TAG,
    Registry,
    explain_failures,
    explain_refusal,
    read_lineage,
)
from rag_opt.production.watching import ALPHA, Stream, compare_streams, find_alarms, read_observations

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ROLLED_BACK = f"{TAG}rolled_back"
"""The tag of a version that was taken back, which says why."""


@dataclass(frozen=True)
class Canary:
    """How much a challenger answered since it was made, and the champion beside it; `streams` compare the two.

    What failed is no answer.
    """

    challenger: ModelVersion
    champion: ModelVersion
    answered: int
    beside: int
    streams: tuple[Stream, ...]
    alpha: float

    @property
    def alarms(self) -> list[Stream]:
        """In what the challenger is worse than the champion."""
        return find_alarms(self.streams, self.alpha)


def find_canary(registry: Registry, name: str, alpha: float = ALPHA) -> Canary | None:
    """The challenger of a registered model beside its champion, by their traces; None where there is none.

    One that is the champion already, or was taken back, loses its alias: a kill may have come before that. Raises
    ModelError for one that may not become the champion.
    """
    challenger = registry.find_alias(name, CHALLENGER)
    champion = registry.find(f"models:/{name}@{CHAMPION}")
    if challenger is None:
        return None
    if str(challenger.version) == str(champion.version) or ROLLED_BACK in challenger.tags:
        registry.drop_alias(name, CHALLENGER)
        return None
    lineage = read_lineage(challenger)
    if lineage is None:
        raise ModelError(f"models:/{name}@{CHALLENGER} was not promoted by rag_opt; --take-back takes its alias away")
    known = read_lineage(champion)
    # A reason stands for --because: somebody has promoted it against the rule.
    why = "" if lineage.reason else explain_refusal(lineage, known)
    if why:
        update = f"python -m rag_opt.update models:/{name}@{CHALLENGER} <documents> brings it up to date; "
        raise ModelError(
            f"models:/{name}@{CHALLENGER} is version {challenger.version}, which may not become the champion: {why}. "
            f"{update if known and known.corpus != lineage.corpus else ''}--take-back takes its alias away"
        )
    # Both from the same moment on, since what people ask changes with time; MLflow counts in ms.
    since = int(challenger.creation_timestamp) / 1000
    rows, others = (
        read_observations(registry, name, f"models:/{name}/{each.version}", since) for each in (challenger, champion)
    )
    streams = tuple(compare_streams(rows, others))
    answered, beside = (sum(not row.failed for row in each) for each in (rows, others))
    return Canary(challenger, champion, answered, beside, streams, alpha)


def crown_challenger(registry: Registry, canary: Canary) -> None:
    """Make the challenger the champion, unless somebody has put up another one meanwhile; raises ModelError then."""
    name = str(canary.challenger.name)
    now = registry.find(f"models:/{name}@{CHAMPION}")
    if str(now.version) != str(canary.champion.version):
        raise ModelError(
            f"models:/{name}@{CHAMPION} means version {now.version} by now, and the challenger was compared with "
            f"{canary.champion.version}: run the same command again"
        )
    registry.crown(canary.challenger)
    registry.drop_alias(name, CHALLENGER)


def roll_back(registry: Registry, judged: ModelVersion, alias: str, why: str) -> str:
    """Take a version out of its alias: a challenger's means nothing then, the champion's what it meant before.

    Gives what was done. Raises ModelError, and leaves everything as it is, where the alias means another version by
    now, where there is nothing to go back to, or where that knows other documents: what was deleted since would be
    found again.
    """
    name, address = str(judged.name), f"models:/{judged.name}@{alias}"
    now = registry.find(address)
    if str(now.version) != str(judged.version):
        raise ModelError(f"{address} stays version {now.version}: what was judged is version {judged.version}")
    if alias == CHALLENGER:
        # Before the alias: whoever finds it after a kill knows.
        _mark(registry, judged, why)
        registry.drop_alias(name, alias)
        return f"{address} is no more: version {now.version} was taken back"
    before = registry.find_alias(name, PREVIOUS)
    if alias != CHAMPION or before is None or str(before.version) == str(now.version):
        raise ModelError(f"{address} stays version {now.version}: no version before it is known")
    ours, theirs = read_lineage(now), read_lineage(before)
    if ours is None or theirs is None or ours.corpus != theirs.corpus:
        raise ModelError(
            f"{address} stays version {now.version}: version {before.version}, which was the champion before, knows "
            "other documents"
        )
    _mark(registry, judged, why)
    registry.set_alias(before, alias)
    # Last: after a kill before it `previous` means the champion, which is no way back.
    registry.drop_alias(name, PREVIOUS)
    return f"{address} is version {before.version} again, in place of {now.version}"


def _mark(registry: Registry, judged: ModelVersion, why: str) -> None:
    with explain_failures(registry.uri, str(judged.name)):
        registry.client.set_model_version_tag(judged.name, str(judged.version), ROLLED_BACK, why)
