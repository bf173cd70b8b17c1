"""Many processes on one study: started, watched, started again.

They share nothing but the storage.
"""
