"""Webhooks, on a platform that may post to this machine."""
