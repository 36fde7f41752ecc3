"""The books, by the services that keep them and by a whole platform."""
