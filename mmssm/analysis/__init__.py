"""Measurements of models, ops and training runs.

Import what you need from its modules: each needs other libraries.
"""
