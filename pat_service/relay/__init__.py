"""The relay: WebSockets of apps that run elsewhere, cut when the service no longer lets their viewer in."""
