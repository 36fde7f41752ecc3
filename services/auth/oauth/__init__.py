"""Mercat as an OAuth 2.0 server: tokens for programs and devices, and what tells whether they are good.
The protocol is Authlib's; what it decides is carried out here. Forms over HTTP are the web edge's business."""
