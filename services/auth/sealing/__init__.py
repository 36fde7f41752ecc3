"""What lies encrypted in the schema of auth, and the keys it lies under: for who replaces those, or erases somebody."""
