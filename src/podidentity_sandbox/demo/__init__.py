"""The story: what the published walk-through of AAD Pod Identity shows, told by real programs.

`story` holds what a step is and how it is run, `shell` the shells that stay open from step to step,
`prepare` the Azure that the story needs, `chapters` the steps and `judgements` what each must show,
`tellers` how it is shown, `forger` (with `frames`) the pod that
steals its neighbour's address.
"""
