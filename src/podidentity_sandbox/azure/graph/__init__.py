"""Microsoft Graph, as far as somebody needs it to look up and to register who signs in.

https://learn.microsoft.com/graph/api/overview
"""
