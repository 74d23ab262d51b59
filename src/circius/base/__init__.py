"""Configuration and errors: the floor of the house. Standard library only."""
