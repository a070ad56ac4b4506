"""What the agent follows at the API server: pods, custom resources, secrets."""
