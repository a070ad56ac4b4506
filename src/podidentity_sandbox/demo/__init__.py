"""The story: what the published walk-through of AAD Pod Identity shows, told by real programs.

`story` defines, runs and prints a step, `shell` holds the shells that stay open from step to step,
`prepare` the Azure that the story needs, `steps` reads the steps from files, here or those with
the real az and kubectl, `checks` says what each must show, `forger` (with `frames`) is the pod that
steals its neighbour's address.
"""
