from __future__ import annotations

import pytest

from tests.kernel.topology import run
from tests.root import needs_root

pytestmark = pytest.mark.net


@needs_root
def test_no_pod_is_led_to_a_program_of_another_user_at_the_agents_port() -> None:
    assert run("impostor") == {
        "rules that an agent has left": "impostor",
        "an agent that comes": "nobody",
        "the agent repairs": "nobody",
        "the agent serves": "nmi",
        "it took the agent's place": "nobody",
        "reached IMDS": [],
    }
