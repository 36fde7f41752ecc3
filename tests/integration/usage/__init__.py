"""Records of calls: stored, rolled up, asked for and dropped."""
