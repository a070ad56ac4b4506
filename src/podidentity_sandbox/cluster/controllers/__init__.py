"""The controllers of a cluster: each is told of every change, in order, and reacts.

One task serves them all from one queue, so what follows from a write is the same in every run.
A controller acts through the same verbs as a client, and is told of its own changes as well.
"""
