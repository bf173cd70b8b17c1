"""Rankings → better rankings (group `reranker`)."""
