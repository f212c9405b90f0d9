"""Embed apps in other people's pages with Personal Access Tokens."""
