"""What is in a data set: counts, sizes, pictures, what training makes of it."""
