"""One trial: how it is trained, measured and described. Nothing here knows of other trials, or of files."""
