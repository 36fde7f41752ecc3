"""Models that go to another organisation: offers, and the move. What it means for money is billing's, which is told."""
