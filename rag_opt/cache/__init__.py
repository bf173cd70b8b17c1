"""Artifacts on disk: what was computed once is found under the key of how it was made.

It knows of bytes, tables and folders, not of what computes them.
"""
