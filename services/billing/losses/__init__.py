"""Disputed money that was spent: whose calls it paid, what of their publishers' earnings is held while the dispute is
open, and taken back when it is lost."""
