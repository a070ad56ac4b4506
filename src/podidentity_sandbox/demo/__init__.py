"""The story: what the published walk-through of AAD Pod Identity shows, told by real programs.

`story` defines, runs and prints a step, `shell` holds the shells that stay open from step to step,
`prepare` the Azure that the story needs, `chapters` the steps and `checks` what each must show,
`walkthrough` the steps with the real az and kubectl, `forger` (with `frames`) the pod that steals
its neighbour's address.
"""
