"""`make bench`: the cost of the service as ratios to the least possible cost of the same work."""
