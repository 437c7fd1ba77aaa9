"""K trials in one pass, each exactly as if alone. With `optimizers`, the only place that knows the trial axis K."""
