"""Organisations with members: roles, invitations, service accounts and shared keys.
What a role opens is decided by the contract's policies; whom a credential belongs to, by `services.auth.principals`."""
