"""What MLflow keeps as the model's code, and runs to have the model: no object is pickled."""

from __future__ import annotations

from mlflow.models import set_model

from rag_opt.production.agent import Agent

set_model(Agent())
