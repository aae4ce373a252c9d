"""Makes ``python -m tools.exchange`` work."""

from tools.exchange.program import app

app()
