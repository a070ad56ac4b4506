"""The rules: who may use which identity, decided without any input or output.

Read in this order: `ids`, `authorities`, `refusals`, `errors`, `resources`, `tokens`,
`entitlements`, `matching`, `permission`, `decision`, `ports`; beside them `hosts`, `delegation` and
`attestation`; for the sources of tokens `secrets`, `federation`, `token_lifetimes`, `rate_limits`.
A module knows only those before it; a test of the imports holds that.
"""
