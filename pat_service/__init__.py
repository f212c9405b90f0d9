"""Personal Access Tokens for embedded apps: minting, frames, and the management API."""

__version__ = "0.1.0"
