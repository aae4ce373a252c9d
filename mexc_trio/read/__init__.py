"""Reading what is recorded, also while a recorder runs."""
