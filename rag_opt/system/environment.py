"""What the process is told before a heavy library is imported: be quiet, report to nobody, keep few kernels."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rag_opt.console.exit_status import handle_broken_pipe

QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "ANONYMIZED_TELEMETRY": "False",
    "OPTUNAHUB_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # A tracking server that is away is made up for later; a study need not wait minutes for every line of it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
FEW_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32"}
"""oneDNN and PyTorch compile a kernel for each shape of a batch and keep a thousand: with batches of every length that
was 0.8 GiB more memory, and slower (174 against 212 passages a second)."""

YIELDING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for each other spin by default, which beside busy processes takes the time of those they wait for:
MiniLM made 24 passages a second beside two of them, 39 with threads that sleep, and no fewer on a quiet machine."""

LOUD = ("alembic", "mlflow", "chromadb", "sentence_transformers", "bm25s", "httpx", "datasets")


def set_environment() -> None:
    """Telemetry off, logs at warnings, few kernels, threads that sleep while they wait; what the user has set stays."""
    for name, value in (QUIET | FEW_KERNELS | YIELDING).items():
        os.environ.setdefault(name, value)
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    # A failed component is told as the trial's reason; Haystack would add a dozen lines about what it can't serialise.
    logging.getLogger("haystack").setLevel(logging.CRITICAL)


@contextmanager
def disable_gc() -> Iterator[None]:
    """No garbage collection within: while modules load nothing is garbage, and looking for it takes a third longer."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@cache
def freeze_modules() -> None:
    """Have no collection look at what is loaded: modules live as long as the process. Once, since studies do not."""
    gc.freeze()


def exit_process() -> None:
    """End the process at once, what was registered for its end done: freeing every object first takes two seconds."""
    with handle_broken_pipe():
        atexit._run_exitfuncs()
        logging.shutdown()
        sys.stderr.flush()
    os._exit(0)


def use_threads(count: int | None) -> None:
    """Let PyTorch and BLAS use so many cores (None: as they are): processes that share a machine must divide it."""
    if count is None:
        return
    from threadpoolctl import threadpool_limits

    threadpool_limits(count)
    # PyTorch is loaded where a model needs it, and reads this then.
    os.environ["OMP_NUM_THREADS"] = str(count)
    # Once loaded, PyTorch reads the variable no more.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def silence_optuna() -> None:
    """Optuna's own lines off: ours say the same. Experimental features that we chose are not worth a warning each."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
