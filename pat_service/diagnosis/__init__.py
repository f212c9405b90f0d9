"""Why is a frame blank, or why does it refuse? What `doctor` asks, part by part.

Each part returns findings, and writes nothing. What it says of tokens is never the token.
"""
