"""What is read → answers (group `generator`)."""
