"""Measurements and pictures of models, ops, routes and results.

Import what you need from its modules: each needs other libraries.
"""
