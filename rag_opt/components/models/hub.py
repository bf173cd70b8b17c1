"""Whether a model can be had from the hub, said within seconds: its client tries for more than a minute."""

from __future__ import annotations

from pathlib import Path

from rag_opt.errors import ComponentError

SECONDS = 4.0
"""That the hub may take to answer at all."""


def is_local_only(where: str, model: str, revision: str | None = None) -> bool:
    """Whether a model is to be looked for on this machine alone, since the hub is away.

    Raises ComponentError, `where` in front, for a folder that is not there, and for a model that is not kept here while
    the hub is away.
    """
    if Path(model).is_dir():
        return False
    # What is written as a path is meant as one: the hub is not asked for a folder that was mistyped.
    if model.startswith(("/", ".", "~")) or "\\" in model or model.count("/") > 1:
        raise ComponentError(f"{where}: model '{model}': there is no such folder; name one that holds a model")
    why = _probe_hub()
    if why is None:
        return False
    if _is_cached(model, revision):
        return True
    raise ComponentError(
        f"{where}: model '{model}' is neither a folder nor kept on this machine, and the hub can't be reached "
        f"({why}): name a folder with such a model, or choose one that needs no network"
    ) from why


def _probe_hub() -> Exception | None:
    """Why the hub does not answer; None where it does."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    if constants.is_offline_mode():
        return OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    try:
        # The client's own session and endpoint know the proxy and the mirror by which the model would come.
        # Any answer will do, an error status included: it is there.
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:
        # The client's own, a proxy's, or one of certificates.
        return error
    return None


def _is_cached(model: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    # Every model has this file, whatever its weights are called.
    return isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)
