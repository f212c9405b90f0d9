"""The running service as operators see it: its log, its health and its metrics."""
