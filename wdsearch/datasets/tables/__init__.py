"""Tables as people write them: how a CSV file is laid out, what its cells mean, and what becomes of each column."""
