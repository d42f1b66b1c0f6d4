"""The packages of a tree: what its package managers' databases list, and what differs between two such lists.

A database is a stranger's file: it is read with bounds, and what is no database is a FormatError that names it.
"""
