"""The service's speed as ratios to the least that the same work costs: `make bench`."""
