"""How fast the service is, as ratios to the least that the same work takes: `make bench`."""
