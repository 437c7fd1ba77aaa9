"""Find the right weight decay jointly with the other regularizers, and see what it did."""
