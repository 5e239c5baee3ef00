"""Bugs planted in a copy of the product -> which test notices each of them.

    patch -> copy of the tree with the bug -> the tests that should notice -> caught or not -> docs/planted.md

A bug is a file in `bugs/`: what is broken, the promise that breaks with it, the tests, and a unified diff. patches.py
and table.py are pure but for reading and `git apply`; copies.py and trials.py start the processes.
"""
