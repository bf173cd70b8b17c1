"""What the operating system has a say in: signals, locks waited for, file modes, threads, who may ask a server.

Nothing here knows of studies or pipelines.
"""
