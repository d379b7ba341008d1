"""What a detector gets wrong, and what each kind of mistake costs."""
