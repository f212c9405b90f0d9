"""What operators see of a running service: its log, its health and its metrics."""
