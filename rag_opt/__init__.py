"""Find the best configuration of a RAG pipeline, and know how sure that is."""

__version__ = "0.1.0"

from rag_opt.system import environment

# Telemetry is decided when a dependency is imported, so this must come before any of them.
environment.prepare()
