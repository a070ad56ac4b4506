"""One token request, from bytes to answer.

pipeline    the whole way, a step a line, and the memo of its answers
caller      whose connection it is, proved by the kernel
host_token  in whose name the CSI driver's provider asks
decision    which identity the pod gets, or why none; how a request ends, as values
hold        how long a request waits for what may still come
errors      the one table from error to status
"""
