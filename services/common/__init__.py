"""What every service uses: settings, errors, the RPC pipeline, the database, events, ids, money and time.
No service's own rules live here."""
