"""Files as people have them → their texts, with what is known of headings, pages and tables.

A converter reads bytes and imports nothing of this program's pipelines, so that a process of its own starts quickly.
"""
