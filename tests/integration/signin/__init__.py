"""Ways to be somebody, on a platform with mail and with other people's accounts."""
