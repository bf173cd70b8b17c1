"""How texts are read, in any script, wherever words are compared, counted or cut.

One place, so that BM25, splitters, metrics and token counts agree on what a word is.
"""
