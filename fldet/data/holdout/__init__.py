"""Images of a training that are set aside to validate on: which are alike, and which are chosen."""
