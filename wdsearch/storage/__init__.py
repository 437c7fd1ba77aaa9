"""Storage of studies: Optuna's, and our tables beside it."""
