"""Measurements of models, ops and training runs.

Import from its modules directly: each needs different libraries.
"""
