"""The product's container image, made from pins without a registry, a daemon or root.

    contents    what is in it, and what is left out, each with its reason
    pins        the packages by hash, and how they are renewed
    packages    fetches them with apt and pip
    tree        files of a layer, out of packages
    own_python  the image's own Python, which compiles and compresses: other machines, same bytes
    oci, sbom   the formats
    recipe      one step after the other
    trial       runs what was built
    __main__    the command, `./scripts/image`

The same pins and the same commit give the same bytes, on any machine: times are zero, names are
sorted, owners are root, and what depends on a version of Python or zlib is done by the image's own.
"""
