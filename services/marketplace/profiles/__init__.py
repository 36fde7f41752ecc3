"""What publishers say of themselves, and what is known of them."""
