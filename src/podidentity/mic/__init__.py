"""MIC, the controller: identities follow the pods that need them.

`calls` holds the values that cross between the rules and the world. `controller` decides: it takes
events and results, and gives calls. It knows no socket, no clock and no task, so that a simulator
can put any fault between any two of its steps.
"""
