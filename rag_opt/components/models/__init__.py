"""Models' files: where their weights come from, and how fast they run here."""
