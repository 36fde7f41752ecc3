"""What people ask for of their own data: exports and erasures. Every service does its part and says so; here they are
begun, put together and finished."""
