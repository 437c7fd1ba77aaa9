"""Samplers that choose trials and pruners that end them, by name, one line each."""
