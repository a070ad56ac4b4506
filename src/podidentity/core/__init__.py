"""The rules: who may use which identity, decided without any input or output.

Read in this order: `ids`, `refusals`, `errors`, `resources`, `tokens`, `hosts`, `matching`,
`selection`, `ports`. A module knows only those before it; a test of the imports holds that.
"""
