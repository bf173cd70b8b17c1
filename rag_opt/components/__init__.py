"""Haystack components that work on batches of queries and keep what they compute."""
