"""What `podidentity check` looks at: each page judges one part of a cluster, by pure functions.

`findings` has the values that all of them give, `reading` what they are made of, `groups` the order
in which a cluster is looked at, and `printing` what a person or a program sees.
"""
