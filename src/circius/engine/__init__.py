"""Requests, sampling, generation, scoring and chat sessions."""
