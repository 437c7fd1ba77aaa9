"""Records of a study on their way to a tracking server."""
