"""What `python -m rag_opt.<command>` runs: a thin module each.

A command line itself belongs to cli/; a command that shares its name with a package is that package's `__main__`.
"""
