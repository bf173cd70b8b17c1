"""Texts → vectors (group `embedder`)."""
