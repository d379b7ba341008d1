"""What is drawn: boxes on images, figures, vector graphics."""
