"""What `verify` finds out, and how it says it."""
