"""Single sign-on: organisations' own providers, the domains that they are for, and who must sign in so. The way to a
provider and back is that of `services.auth.identities`, as of every other one."""
