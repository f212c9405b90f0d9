"""The rules of the service. They take plain values and know no HTTP.

`access` decides whether a user may open an app. `minting` checks a mint and stores the new token. `tokens`
checks a token and lets a single-use token be repeated. `sessions` opens, checks and ends sessions. `callers`
authenticates clients. `clients` and `directory` change clients and the directory. `events` records the audit
trail.
"""
