"""MLflow as a mirror of a study: runs, traces, prompts.

A study never depends on it.
"""
