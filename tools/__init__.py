"""Programs for developing mexc-trio: the simulated exchange and the benchmarks; not installed."""
