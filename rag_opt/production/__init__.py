"""From a study's winner to a model: bundled, registered in MLflow, promoted, answering without the study."""

from __future__ import annotations
