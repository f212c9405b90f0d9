"""The demo: an invented customer's portal, its people, and their data in the two apps."""
