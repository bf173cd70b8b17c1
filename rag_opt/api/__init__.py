"""The front door from Python: what `rag_opt.optimize` and its like do; `import rag_opt` names all of it.

It turns Python values into the overrides that a command line has, and calls what the commands call.
"""
