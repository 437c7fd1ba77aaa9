"""Starts workers, now or when a schedule says so."""
