"""The command line. Modules here import nothing heavier than typer until a command runs.

``agent`` is a program of its own.
"""
