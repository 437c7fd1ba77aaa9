"""How a trial steps: one file and one line for each optimizer."""
