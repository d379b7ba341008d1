"""The score of each class from which a detection is to count."""
