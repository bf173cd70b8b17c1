"""An assignment of a search space as Hydra's overrides, in words that Hydra reads as the very same values."""

from __future__ import annotations

from collections.abc import Mapping

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from rag_opt.config.search_space import UP_TO, Value


def to_config_values(params: Mapping[str, Value]) -> dict[str, Value]:
    """A trial's parameters under the keys of the configuration."""
    return {name.partition(UP_TO)[0]: value for name, value in params.items()}


def format_overrides(values: Mapping[str, Value]) -> list[str]:
    """The values as Hydra overrides: floats in full, text quoted where Hydra's grammar needs it."""
    return [f"{name}={format_hydra_value(value)}" for name, value in values.items()]


def format_hydra_value(value: Value) -> str:
    """The value as Hydra's grammar has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return repr(value)
    # Hydra makes a number, true or null of what looks like one; only text that comes back as itself goes unquoted.
    plain = OverridesParser.create().parse_override(f"key={value}").value() if _is_plain(value) else None
    return value if plain == value and isinstance(plain, str) else QuotedString(value, Quote.single).with_quotes()


def _is_plain(value: str) -> bool:
    return bool(value) and all(character.isalnum() or character in "_-./" for character in value)
