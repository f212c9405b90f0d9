"""The demo: a made-up customer's portal, its people, and what they have in the two apps."""
