"""How a service runs: where it listens, whom it answers, and how much at once."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from limits import RateLimitItem, parse

from rag_opt.errors import ConfigError
from rag_opt.serving.keys import VARIABLE
from rag_opt.system.same_origin import NAMES

NAME = "RAG_OPT_SERVING"
"""The environment variable by which processes of one service are told its settings; no key is among them."""


@dataclass(frozen=True)
class ServerSettings:
    """What `python -m rag_opt.serve` was told; seconds, bytes, shares of 1.

    `model` and `canary` name models, `share` is the canary's; `rate` limits each key, such as 60/minute ("": no limit).
    Every `refresh` seconds it is looked whether an alias means another version (0: never).
    Beyond `at_once` questions under way and `waiting` behind them more are refused.
    """

    model: str
    canary: str = ""
    share: float = 0.0
    host: str = "127.0.0.1"
    port: int = 8200
    workers: int = 1
    at_once: int = 8
    waiting: int = 64
    rate: str = ""
    timeout: float = 60.0
    largest: int = 1_000_000
    traces: float = 1.0
    state: str = ""
    tracking: str = ""
    refresh: float = 1.0

    @property
    def local(self) -> bool:
        """Whether it goes by a name that only this machine has."""
        return self.host in NAMES

    @property
    def limit(self) -> RateLimitItem | None:
        """The rate that each key is held to."""
        return parse(self.rate) if self.rate else None

    def check(self) -> None:
        """Raise ConfigError for what can't be, and for a service that everybody could ask."""
        try:
            self.limit  # noqa: B018 (parsed)
        except ValueError as error:
            raise ConfigError(f"--rate {self.rate}: a number and a time are expected, such as 60/minute") from error
        if not 0 <= self.traces <= 1:
            raise ConfigError(f"--traces {self.traces}: a share of the questions is expected, from 0 to 1")
        if not self.local and not os.environ.get(VARIABLE):
            raise ConfigError(
                f"--host {self.host}: under another name than {' and '.join(NAMES)} it answers to keys alone: set "
                f"{VARIABLE}=name:key,…"
            )

    def to_environment(self) -> dict[str, str]:
        """The variable that hands them to other processes."""
        return {NAME: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> ServerSettings:
        """The settings that this process was started with."""
        return cls(**json.loads(os.environ[NAME]))


def parse_canary(given: str | None) -> tuple[str, float]:
    """(model, share) of --canary models:/x@challenger=0.1; raises ConfigError for anything else."""
    if given is None:
        return "", 0.0
    # From the right: a folder's path may have = in it, too.
    model, _, share = given.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not model or not 0 < value < 1:
        raise ConfigError(f"--canary {given}: a model and its share are expected: models:/x@challenger=0.1")
    return model, value
