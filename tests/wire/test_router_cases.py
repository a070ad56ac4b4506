"""The archived project's own router cases (TestRouterPathPrefix), and where ours differ.

https://github.com/Azure/aad-pod-identity/blob/master/pkg/nmi/server/server_test.go
"""

from __future__ import annotations

import pytest

from podidentity.wire.metadata import AllowList, Route, classify


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/metadata/identity/oauth2/token", Route.TOKEN),
        ("/metadata/identity/oauth2/token/", Route.TOKEN),
        ("/METADATA/identity/oauth2/token/", Route.TOKEN),
        ("/host/token", Route.HOST_TOKEN),
        ("/host/token/", Route.HOST_TOKEN),
        ("/metadata/instance", Route.FORWARD),
        ("/METADATA/instance", Route.FORWARD),
        ("/metadata/instance/", Route.FORWARD),
        # Its default was to pass on whatever is left; ours is not to.
        ("/metadata/IDENTITY/oauth2/token/", Route.SUSPICIOUS),
        ("/metadata/", Route.BLOCKED),
        # CVE-2022-23551.
        (r"/metadata/identity\oauth2/token/", Route.SUSPICIOUS),
        (r"/metadata/identity/oauth2\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\oauth2\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\oauth2/\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\\\oauth2\\token/", Route.SUSPICIOUS),
    ],
)
def test_a_path_goes_where_the_archived_project_led_it_or_nowhere(path: str, route: Route) -> None:
    assert classify(path, AllowList()).route is route
