"""The virtual directories of a view, one a room; fsview/names.py tells which node is whose."""
