"""A study: its plan, its loop, and every decision about trials.

Who gets which trial, what is stopped, what is recommended.
"""
