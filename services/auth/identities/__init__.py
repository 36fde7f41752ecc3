"""Signing in with an account elsewhere: any OpenID provider, and GitHub. The protocol is Authlib's client and PyJWT;
whom somebody from there is here is decided in `resolving`."""
