"""Recorded rows as files: what `mexc-trio export` and `mexc-trio backup` have in common."""
