"""Budgets: what an organisation, a key or a model may cost in a day or a month, and who is told how far it is."""
