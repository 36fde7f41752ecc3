"""Which handles people and organisations may have: none that is reserved, that looks like another's, or that somebody
gave up not long ago."""
