"""How training runs went, from the scalars of their logs."""
