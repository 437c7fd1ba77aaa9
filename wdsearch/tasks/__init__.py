"""Tasks: what outputs and targets mean, and the losses and metrics that judge them; never how a network is trained."""
