"""Where people are signed in: sessions, their refresh tokens, and how they end."""
