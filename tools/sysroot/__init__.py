"""Deployments: trees on disk that can be switched and rolled back; see layout.py and docs/deployments.md."""
