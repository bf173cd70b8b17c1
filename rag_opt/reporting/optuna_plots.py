"""Optuna's Plotly figures, without the Matplotlib ones that its package loads beside them."""

from __future__ import annotations

import sys
from types import ModuleType

PACKAGE, TWIN = "optuna.visualization", "optuna.visualization.matplotlib"


def load_visualization() -> ModuleType:
    """optuna.visualization; Matplotlib, 0.7 s to load, is loaded with it only if it is in use already.

    Whoever imports optuna.visualization.matplotlib later gets it whole.
    """
    if PACKAGE in sys.modules or "matplotlib" in sys.modules:
        import optuna.visualization

        return optuna.visualization
    # None makes its import fail, which Optuna allows for: Matplotlib is optional to it.
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        import optuna.visualization
    finally:
        del sys.modules["matplotlib"]
        for name in [name for name in sys.modules if name == TWIN or name.startswith(f"{TWIN}.")]:
            del sys.modules[name]
    # The attribute would go on naming the one that found no Matplotlib.
    vars(optuna.visualization).pop("matplotlib", None)
    return optuna.visualization
