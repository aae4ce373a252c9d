"""How a recorder does, for machines: metrics for Prometheus, health for whoever restarts it."""
