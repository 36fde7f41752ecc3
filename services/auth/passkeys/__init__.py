"""Passkeys (WebAuthn Level 2): keys that a person's devices hold and use after a fingerprint, a face or a PIN. One is
two factors: the device, and what opens it. The protocol is py_webauthn's."""
