"""Questions about documents: what a set of them can show, and which of them no study should trust.

A check reads a data set as studies do, whoever wrote it, and says what is wrong with which question.
"""
