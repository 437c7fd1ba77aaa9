"""The error for who brings the data; others stand beside what raises them."""


class DataError(Exception):
    """Data from which nothing can be learned, or not as it is asked for."""
