"""The rules: who may use which identity, decided without any input or output.

Read in this order: `resources`, `authorities`, `refusals`, `errors`, `decision`, `indexes`,
`ports`; beside them `hosts`, `delegation`, `attestation` and `data_path`; for who comes from the
archived project `migration`; for the controller `ledger`, `permissions`, `shares` and
`assignments`; for the sources of tokens `secrets`, `federation`, `rate_limits`. A module knows only
those before it; a test of the imports holds that.
"""
