"""Microsoft Graph, as far as it is needed to look up and to register principals.

https://learn.microsoft.com/graph/api/overview
"""
