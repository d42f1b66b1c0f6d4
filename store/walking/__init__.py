"""Trees in which others may write, walked by descriptors.

Who owns a directory in a tree can replace whatever is in it at any moment, by a symlink that leads to our files or by
another tree. So nobody here believes a path twice: what was opened is gone on with, symlinks are never followed, and
".." only leads where one came from.

    beneath.py   open something below a directory
    walk.py      go down a tree and up again, with few descriptors
    remove.py    remove a tree
    copy.py      copy a tree
    private.py   a directory that nobody else gets into
"""
