"""The plain values of a configuration, checked: names, numbers, folders."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rag_opt.config.trust import to_plain
from rag_opt.errors import ConfigError, format_hint

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]{0,199}")
LONGEST = 200
"""Characters of a name, which a folder has, too."""

TRACES = ("none", "finalists", "all")
AUTO = "auto"
DOCUMENT = "document"
SPLIT, CROSSFIT = "split", "crossfit"
METHODS = (AUTO, SPLIT, CROSSFIT)
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
"""Names that are devices on Windows, with any ending."""


@dataclass(frozen=True)
class Stop:
    """When a search may end early: after so many trials, at an expected gain below this share of the noise."""

    after: int
    share: float


@dataclass(frozen=True)
class Settings:
    """A study's name and folder, its seed, and what it may cost (`timeout` and `budget_seconds` in seconds).

    `ablation` None: where no model has to be paid for it. `method` AUTO: by the number of questions, which
    `evaluator.choose_method` knows.
    """

    name: str
    folder: Path
    seed: int
    n_trials: int
    n_workers: int
    retries: int
    timeout: float | None
    batches: int
    test_share: float
    split_seed: int
    own_splits: tuple[str, str]
    groups: str | None
    threads: int | None
    ties: int
    method: str
    ablation: bool | None
    budget_usd: float | None
    budget_tokens: float | None
    budget_seconds: float | None
    forecast: bool
    preflight: bool
    promote: bool
    traces: str
    stopping: Stop | None

    @property
    def crossfits(self) -> bool:
        """Whether all questions are searched, and each is judged by a choice that is made without it."""
        return self.method == CROSSFIT


def parse_settings(config: DictConfig, variant: str = "") -> Settings:
    """The checked settings; `variant` tells the studies of one multirun apart (a folder below the name).

    Raises ConfigError naming the key, what was given and what is expected.
    """
    for key in ("forecast", "preflight", "promote"):
        if not isinstance(to_plain(config[key]), bool):
            raise ConfigError(f"{key}={to_plain(config[key])}: true or false is expected")
    whole = _parse_text("name", to_plain(config.name))
    # A multirun's study may be named by itself, as name/variant.
    parts = [_parse_name("name", part, whole) for part in whole.split("/", 1)]
    if variant:
        parts.append(_parse_name("the multirun's overrides", _sanitize_name(variant), variant))
    share = to_plain(config.dataset).get("test_share")
    if not _is_number(share, 0) or share >= 1:
        raise ConfigError(f"dataset.test_share={share}: a number above 0 and below 1 is expected")
    _check_records(config)
    folder = _resolve_study_folder(parse_folder("studies_dir", to_plain(config.studies_dir)), parts)
    return Settings(
        name="/".join(parts),
        folder=folder,
        seed=_parse_whole(config, "seed", 0),
        n_trials=_parse_whole(config, "n_trials", 1),
        n_workers=_parse_whole(config, "n_workers", 1),
        retries=_parse_whole(config, "retries", 0),
        # Given in minutes, kept in seconds.
        timeout=_parse_limit("timeout", config.timeout, 60.0),
        batches=_parse_whole(config.evaluation, "batches", 1, "evaluation."),
        test_share=share,
        split_seed=_parse_whole(config.dataset, "split_seed", 0, "dataset."),
        own_splits=parse_own_splits(config),
        groups=parse_groups(config),
        threads=None if to_plain(config.threads) is None else _parse_whole(config, "threads", 1),
        ties=_parse_whole(config.confirmation, "ties", 0, "confirmation."),
        method=_parse_method(config),
        ablation=_parse_ablation(config),
        budget_usd=_parse_limit("budget.usd", config.budget.usd),
        budget_tokens=_parse_limit("budget.tokens", config.budget.tokens),
        budget_seconds=_parse_limit("budget.minutes", config.budget.minutes, 60.0),
        forecast=bool(to_plain(config.forecast)),
        preflight=bool(to_plain(config.preflight)),
        promote=bool(to_plain(config.promote)),
        traces=_parse_traces(config.tracking),
        stopping=_parse_stopping(config.stopping),
    )


def _parse_method(config: DictConfig) -> str:
    given = str(to_plain(config.confirmation.method))
    if given not in METHODS:
        raise ConfigError(
            f"confirmation.method={given}: {' or '.join(METHODS)} is expected; {format_hint(given, METHODS)}"
        )
    return given


def _parse_ablation(config: DictConfig) -> bool | None:
    """Whether settings are put back; None: where no model has to be paid for it."""
    given = to_plain(config.confirmation.ablation)
    if given != AUTO and not isinstance(given, bool):
        raise ConfigError(f"confirmation.ablation={given}: auto, true or false is expected")
    return None if given == AUTO else bool(given)


def parse_own_splits(config: DictConfig) -> tuple[str, str]:
    """The names of the data set's own splits to search and to confirm with, "auto" where none is named."""
    node = to_plain(config.dataset)
    search, confirm = (_parse_text(f"dataset.{key}", node.get(key, AUTO)) for key in ("search", "confirm"))
    return search, confirm


def parse_groups(config: DictConfig) -> str | None:
    """By what questions are one observation; None: by themselves."""
    given = to_plain(config.dataset).get("groups")
    if given not in (None, DOCUMENT):
        raise ConfigError(f"dataset.groups={given}: {DOCUMENT} or null is expected")
    return DOCUMENT if given else None


def parse_folder(key: str, given: Any) -> Path:
    """The folder that a key names, `~` expanded; raises ConfigError where it names none."""
    try:
        # A NUL makes the first call of the system raise a ValueError, which would name no key.
        if isinstance(given, str) and given.strip() and "\0" not in given:
            return Path(given).expanduser()
    except RuntimeError:
        # `~user` of a user that there is not.
        pass
    raise ConfigError(f"{key}={str(given)[:200]!r}: a folder is expected, such as {key}=studies")


def _resolve_study_folder(root: Path, parts: list[str]) -> Path:
    """The study's folder below `root`; raises ConfigError where a link or a database's URL would lead out of it."""
    if set("?#") & set(str(root)):
        raise ConfigError(f"studies_dir={root}: it becomes part of a database's URL, so it must hold neither ? nor #")
    folder = root.joinpath(*parts)
    try:
        # The root itself may be a link, to a larger disk, say; one below it leads to where no study was meant to be.
        links = [
            path for path in (root / parts[0], folder, *folder.glob("*"), *folder.glob("trials/*")) if path.is_symlink()
        ]
        outside = [path for path in links if not path.resolve().is_relative_to(root.resolve())]
    # A link that leads to itself is a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"studies_dir={root}: {folder.name} can't be looked into: {error}"[:500]) from error
    if outside:
        raise ConfigError(
            f"name={'/'.join(parts)}: {outside[0]} is a link out of studies_dir, to {outside[0].resolve()}; remove it, "
            "or name the place itself with studies_dir="
        )
    return folder


def get_trial_folder(folder: Path, number: int) -> Path:
    """Where a trial leaves its composed configuration and its scores."""
    return folder / "trials" / f"{number:04d}"


def _sanitize_name(variant: str) -> str:
    """The swept overrides as a folder's name: +experiment=a → experiment=a, characters of paths and quotes → -.

    A name that was changed or cut ends in a hash of what it stands for, so that no two combinations share a study.
    """
    given = variant.lstrip("+~")
    # A name with two dots in a row is refused, as a way out of the folder, so none may be left.
    name = re.sub(r"[^A-Za-z0-9._=,+-]", "-", given).replace("..", "-.")
    if name == given and len(name) <= LONGEST and NAME.fullmatch(name) and not name.endswith("."):
        return name
    # 9 for the hyphen and the hash; words of a command line may hold surrogates, which plain UTF-8 refuses.
    return f"{name[: LONGEST - 9]}-{sha256(given.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _parse_text(key: str, given: Any) -> str:
    """A text; raises ConfigError where a file's YAML made a number, a date or null of what stands there."""
    if not isinstance(given, str):
        raise ConfigError(f"{key}={given}: read as {type(given).__name__}, not as text; in a file quote it: {key}: '…'")
    return given


def _parse_name(key: str, text: str, whole: str) -> str:
    # Windows drops a dot at the end of a name, so two studies would share a folder.
    if not NAME.fullmatch(text) or ".." in text or text.partition(".")[0].lower() in RESERVED or text.endswith("."):
        raise ConfigError(
            f"{key}={whole[:80]!r}: a study's name is its folder's name: letters, digits and . _ - = , + only, "
            "beginning with a letter or digit, 200 characters at most (a multirun's study: name/variant)"
        )
    return text


def _parse_whole(node: DictConfig | None, key: str, least: int, prefix: str = "") -> int:
    given = None if node is None else to_plain(node.get(key))
    # true is 1 to Python; as a count it is a mistake.
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise ConfigError(f"{prefix}{key}={given}: a whole number of at least {least} is expected")
    return given


def _parse_limit(key: str, given: Any, scale: float = 1.0) -> float | None:
    """A limit above 0, or none."""
    if given is not None and not _is_number(given, 0):
        raise ConfigError(f"{key}={given}: {'minutes' if scale > 1 else 'a number'} above 0, or null, expected")
    return None if given is None else scale * given


def _parse_stopping(config: DictConfig) -> Stop | None:
    share = _parse_limit("stopping.share", config.get("share"))
    if share is not None and config.get("after") is None:
        raise ConfigError(f"stopping.share={share}: without a rule; choose stopping=regret")
    return None if share is None else Stop(_parse_whole(config, "after", 2, "stopping."), share)


def _parse_traces(tracking: DictConfig) -> str:
    """Whose questions are kept as traces; none without tracking."""
    given = to_plain(tracking.get("traces", TRACES[0]))
    if given not in TRACES:
        raise ConfigError(f"tracking.traces={given}: one of {', '.join(TRACES)} is expected")
    return str(given)


def _check_records(config: DictConfig) -> None:
    """Raise ConfigError where the storage or the tracking lacks an address."""
    tracking = to_plain(config.tracking)
    if not isinstance(tracking.get("enabled"), bool):
        raise ConfigError(f"tracking.enabled={tracking.get('enabled')}: true or false is expected")
    texts = {"storage.url": to_plain(config.storage).get("url")}
    if tracking["enabled"]:
        texts |= {f"tracking.{key}": tracking.get(key) for key in ("uri", "artifacts", "experiment")}
    for key, given in texts.items():
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            raise ConfigError(f"{key}={given!r}: text is expected; conf/{key.partition('.')[0]}/ shows its form")


def _is_number(given: Any, above: float) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and above < given < float("inf")
