"""The rules of the service. They take plain values and know no HTTP."""
