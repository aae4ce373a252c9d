"""Tests with real processes, servers and files."""
