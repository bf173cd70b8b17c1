"""The command lines, one module each.

They parse, call what does the work, and print.
"""
