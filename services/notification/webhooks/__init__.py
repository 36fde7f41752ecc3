"""Webhooks: events of the platform, in words for outsiders, signed and posted at least once to where organisations
want them."""
