"""Trials of the recorder as a process: much trouble, then every row held against what was sent.

``python -m tools.soak --help`` lists them.
"""
