"""What exists: the assets and their checks, the definitions that wire them, the command line."""
