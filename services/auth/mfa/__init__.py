"""Second factors: codes of authenticator apps, and recovery codes for when the app is lost."""
