"""Which annotations are probably wrong."""
