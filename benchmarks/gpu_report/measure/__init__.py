"""The report's own measurements, each run as a program."""
