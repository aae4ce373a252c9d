"""Tables into files and back, checked row for row."""
