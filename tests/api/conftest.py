from tests.directory import directory
from tests.shared import app, clock, lasting, limited, standing

__all__ = ["app", "clock", "directory", "lasting", "limited", "standing"]
