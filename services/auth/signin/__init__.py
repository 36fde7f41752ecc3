"""How people prove who they are by password and mail, and what is done about those who guess."""
