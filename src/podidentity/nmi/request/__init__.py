"""One token request: who asks, what it may use, which token answers it."""
