"""Draws conclusions from numbers, in pure functions; trains and plots nothing."""
