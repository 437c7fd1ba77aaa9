"""Choosing trials and ending them: Optuna's samplers and pruners by name, one line each."""
