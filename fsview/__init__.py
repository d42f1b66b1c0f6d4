"""The view: whole trees of a repository as a read-only FUSE file system."""
