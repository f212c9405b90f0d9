"""Tools for a release of the service."""
