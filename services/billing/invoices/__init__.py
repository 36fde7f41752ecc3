"""Invoices: what a period's subscriptions and calls come to, how that is collected, and the calls behind each line."""
