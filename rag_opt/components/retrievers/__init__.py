"""Queries → rankings (groups `retriever` and `index`)."""
