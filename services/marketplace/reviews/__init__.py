"""Reviews: what organisations say of versions that they called, and what they add up to. That a call was made is
asked of usage; nobody else's word is taken for it."""
