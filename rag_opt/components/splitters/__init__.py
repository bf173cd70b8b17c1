"""Documents → chunks (group `splitter`)."""
