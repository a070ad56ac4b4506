"""The rules: who may use which identity, decided without any input or output.

Read in this order: `ids`, `authorities`, `refusals`, `errors`, `resources`, `tokens`, `hosts`,
`entitlements`, `usability`, `excepting`, `matching`, `selection`, `permission`, `decision`,
`ports`; beside them `delegation`; for the sources of tokens `secrets`, `federation`,
`token_lifetimes`, `rate_limits`, `standing`. A module knows only those before it; a test of the
imports holds that.
"""
