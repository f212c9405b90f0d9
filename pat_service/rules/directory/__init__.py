"""The directory: workspaces, users, members, apps and grants.

Each module lists, reads, creates, changes and removes rows within the caller's workspaces. Each of these
operations is one transaction. `put` with a `Change`, and `put_all`, join the transaction of the provisioning
file.
"""

from pat_service.rules.directory import apps, grants, members, upstreams, users, workspaces

__all__ = ["apps", "grants", "members", "upstreams", "users", "workspaces"]
