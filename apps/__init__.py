"""The embedded apps: one folder each. APPS_PATH adds folders of other places to this package."""
