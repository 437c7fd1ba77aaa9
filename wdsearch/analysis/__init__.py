"""What the numbers say: pure functions. Nothing here trains or draws."""
