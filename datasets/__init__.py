"""Turns recordings on disk into items.

It finds which files a collection has, what they are labelled, and what can be decoded of them.
"""
