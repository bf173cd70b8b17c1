"""Hydra's edge: composing, what may be named, the search space; every mistake explained in one message.

What leaves here is typed and needs no Hydra.
"""
