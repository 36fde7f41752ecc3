"""Credit that the platform gives: in which order calls spend it, and what happens when it expires."""
