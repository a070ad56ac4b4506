"""A release: all files that somebody downloads, made of one commit, and of nothing else.

    statement   what the commit says of its version, and of what changed
    wheels      the two distributions
    chart       the chart's package, as `helm package` makes one
    bills       what each wheel was tested with: CycloneDX
    signing     the signature of the checksums, for cosign and for OpenSSL
    __main__    the command, `./scripts/release`

The same commit gives the same bytes. What is not committed is no part of it: all is made in an
export of the commit. Times are the commit's, and nothing is compressed by this machine's zlib.
"""
