"""A study's result as one HTML page and its pictures. Nothing here trains, and nothing is sent."""
