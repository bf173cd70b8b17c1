"""One loader per format; each gives a checked `Dataset`."""
