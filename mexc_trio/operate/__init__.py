"""What an operator does to a recorder, or to what it has recorded."""
