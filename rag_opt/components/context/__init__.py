"""Rankings → what is read (group `context`)."""
