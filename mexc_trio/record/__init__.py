"""Recording: from a symbol's messages through the journal into the store, and how it all ends."""
