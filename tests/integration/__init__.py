"""The services on real servers, through their contracts."""
