"""Tests without a process and without an engine: seconds."""
