"""The exchange: its protocol, a connection to it, and what it lists."""
