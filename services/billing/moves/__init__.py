"""Models that went to another organisation, for money: what names their owner or their address. Calls carry whom they
earn for, so that what was earned before stays where it is."""
