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
    """What a challenger answered since it was made, beside the champion in the same time; `streams` compare the two."""

    challenger: ModelVersion
    champion: ModelVersion
    answers: int
    beside: int
    streams: tuple[Stream, ...]
    alpha: float

    @property
    def alarms(self) -> list[Stream]:
        """In what the challenger is worse than the champion."""
        return find_alarms(self.streams, self.alpha)


def find_canary(registry: Registry, name: str, alpha: float = ALPHA) -> Canary | None:
    """The challenger of a registered model beside its champion, by their traces; None where there is none.

    Raises ModelError for a challenger that may not become the champion: nobody knows what to do with it.
    """
    challenger = registry.find_alias(name, CHALLENGER)
    champion = registry.find(f"models:/{name}@{CHAMPION}")
    if challenger is None or str(challenger.version) == str(champion.version):
        return None
    lineage = read_lineage(challenger)
    if lineage is None:
        raise ModelError(f"models:/{name}@{CHALLENGER} was not promoted by rag_opt: take its alias away first")
    why = "" if lineage.reason else explain_refusal(lineage, read_lineage(champion))
    if why:
        raise ModelError(
            f"models:/{name}@{CHALLENGER} is version {challenger.version}, which may not become the champion: {why}. "
            f"Take its alias away, or promote it with --because"
        )
    since = int(challenger.creation_timestamp) / 1000
    rows, others = (
        read_observations(registry, name, f"models:/{name}/{each.version}", since) for each in (challenger, champion)
    )
    streams = tuple(compare_streams(rows, others))
    return Canary(challenger, champion, len(rows), len(others), streams, alpha)


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


def roll_back(registry: Registry, name: str, alias: str, why: str) -> str:
    """Take a version out of its alias: a challenger's means nothing then, the champion's what it meant before.

    Gives what was done. Raises ModelError, and leaves everything as it is, where there is nothing to go back to, or
    where that knows other documents: what was deleted since would be found again.
    """
    found = registry.find(f"models:/{name}@{alias}")
    if alias == CHALLENGER:
        registry.drop_alias(name, alias)
        done = f"models:/{name}@{alias} is no more: version {found.version} was taken back"
    else:
        before = registry.find_alias(name, PREVIOUS)
        if alias != CHAMPION or before is None or str(before.version) == str(found.version):
            raise ModelError(f"models:/{name}@{alias} stays version {found.version}: no version before it is known")
        ours, theirs = read_lineage(found), read_lineage(before)
        if ours is None or theirs is None or ours.corpus != theirs.corpus:
            raise ModelError(
                f"models:/{name}@{alias} stays version {found.version}: version {before.version}, which was the "
                "champion before, knows other documents"
            )
        registry.set_alias(before, alias)
        registry.drop_alias(name, PREVIOUS)
        done = f"models:/{name}@{alias} is version {before.version} again, in place of {found.version}"
    with explain_failures(registry.uri, name):
        registry.client.set_model_version_tag(name, str(found.version), ROLLED_BACK, why)
    return done
