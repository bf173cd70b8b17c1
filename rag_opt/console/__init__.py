"""What a person reads and a shell is told: lines, progress, exit statuses; nothing hostile or secret in them.

Deepest of all packages but `records`: whoever says anything says it through here.
"""
