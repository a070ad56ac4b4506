"""Azure Resource Manager, as far as the sandbox's stories need it."""
