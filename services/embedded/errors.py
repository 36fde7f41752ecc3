"""What can keep Mercat from starting, each as one sentence that ends in the way out."""


class StartError(Exception):
    """Mercat cannot start. The text is for the person at the terminal."""


class ChildFailed(StartError):
    """A process ended, or did not get ready in time, while it was being started."""
