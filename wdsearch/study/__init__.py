"""A study file becomes a checked `StudyConfig` and a `TrialFactory`. Nothing here trains."""
