"""Who may know of a model and who may call it, as its organisation says. Where that is held to is `visibility.py` for
what the registry tells, and the workers for calls."""
