"""Samplers for the spaces of RAG pipelines, usable in any Optuna study: they import optuna, numpy and scipy alone."""

from rag_opt.samplers.costs import StageSeconds
from rag_opt.samplers.greedy import GreedySampler
from rag_opt.samplers.rag import RagSampler

__all__ = ["GreedySampler", "RagSampler", "StageSeconds"]
