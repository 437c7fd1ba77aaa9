"""The search: ask, train, judge, tell."""
