"""The frozen records that travel between all parts, and the keys that name how they were made.

No behaviour beyond what a record knows of itself.
"""
