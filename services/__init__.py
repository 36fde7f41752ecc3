"""Mercat's services. Each folder is one service, `common` is what all of them use, `embedded` runs the servers
they need on one machine and `cli` is the `mercat` command."""
