"""The `mercat` command. What runs the platform is in `up`, `operate` and `config`; everything else calls it through
its contracts, as any client would."""
