"""Optuna's storages: opening, locks, attributes, the files and scores of trials.

Which trial comes next is decided in `study`.
"""
