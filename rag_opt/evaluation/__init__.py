"""A configuration → pipelines → scores: building, evaluating, timing, the objective.

One configuration at a time; it knows of no study.
"""
