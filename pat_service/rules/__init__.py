"""The rules of the service. They take plain values and know no HTTP.

`access` decides who may open an app. `minting` shows the order of a mint's checks, `tokens` the checks of a
token and the repeat of a single-use token, and `sessions` the life of a session. `callers` authenticates
clients, `clients` and `directory` change what exists, and `events` records the audit trail.
"""
