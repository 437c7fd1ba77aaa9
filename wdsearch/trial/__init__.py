"""Training, measurement and description of one trial; nothing here knows of other trials, or of files."""
