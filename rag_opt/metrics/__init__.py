"""Metrics, per query, by the names of their field."""
