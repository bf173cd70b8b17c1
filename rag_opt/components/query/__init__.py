"""Questions → what is searched for (group `query`)."""
