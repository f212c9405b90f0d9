from tests.shared import app, clock, lasting, limited, standing

__all__ = ["app", "clock", "lasting", "limited", "standing"]
