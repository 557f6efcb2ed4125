"""The numerics: pure functions over numpy arrays, without input or output, clock or logging.

Symbols follow docs/NOTATION.md.
"""
