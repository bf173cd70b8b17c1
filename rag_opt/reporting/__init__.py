"""A finished study → tables, figures, a page, a comparison.

It reads findings and trials, and measures nothing.
"""
