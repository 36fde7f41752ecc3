"""Secrets: where the installation's own come from (a file, the environment, Vault), and keys of each owner under which
theirs lie encrypted. What is only compared (passwords, API keys, codes) is a hash elsewhere, and no secret here."""
