"""Recorded rows as files for research."""
