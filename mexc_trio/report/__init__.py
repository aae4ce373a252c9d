"""A day of recording as a page."""
