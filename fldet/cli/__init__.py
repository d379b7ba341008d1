"""The command line. Modules here import nothing heavier than typer until a command runs."""
