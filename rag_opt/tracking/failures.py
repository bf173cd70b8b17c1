"""What is said where the tracking server fails."""

from __future__ import annotations

from rag_opt.console.secrets import hide_secrets

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "UNAUTHENTICATED", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND")
"""What MLflow calls errors that trying again does not mend."""


def shorten_error(error: Exception) -> str:
    """An error in a line, nothing secret in it."""
    # Hidden before it is cut: half a password would not be known for one.
    return hide_secrets(f"{type(error).__name__}: {error}").splitlines()[0][:160]


def format_repair(error: Exception) -> str:
    """Whether, and when, what MLflow lacks will be there."""
    if getattr(error, "error_code", "") in REFUSALS:
        return "and MLflow will refuse that again until it, or what it is given, is changed"
    return "and the same command repairs MLflow once that can be written"
