"""Teams of an organisation: what members are given together. What a role opens is in `services.auth.organisations`."""
