"""Money in and back, with a Stripe."""
