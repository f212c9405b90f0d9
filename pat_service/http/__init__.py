"""Request plumbing: problems, limits, authentication, headers and request bodies."""
