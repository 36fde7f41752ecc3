"""REST, by Envoy and by the shim."""
