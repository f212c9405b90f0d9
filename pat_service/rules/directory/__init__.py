"""Who exists, and who may open what: workspaces, users, members, apps, grants.

Each part lists, reads, creates, changes and removes for a caller, who meets only what is within its
workspaces; each of these verbs is a transaction. `put` and `put_all` take part in the transaction of
the provisioning file.
"""

from pat_service.rules.directory import apps, grants, members, users, workspaces

__all__ = ["apps", "grants", "members", "users", "workspaces"]
