"""Recorded studies as tables, and samplers replayed on them.

Nothing is built or measured here.
"""
