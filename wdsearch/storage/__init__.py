"""Where a study lives: Optuna's storage and our tables beside it."""
