"""The platform as people use it: by the command line, other people's clients and a browser, with the demo catalogue."""
