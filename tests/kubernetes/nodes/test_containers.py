"""The tests of the agent in a container runtime that ask nothing of its kind, on real nodes."""

from __future__ import annotations

import pytest

from tests.acceptance.runtime.test_containers import (
    test_a_bound_pod_has_a_token_and_one_without_a_right_is_refused,
    test_a_neighbours_address_gives_nothing,
    test_a_pod_that_asks_in_its_first_instruction_has_a_token,
    test_a_pod_without_any_right_of_its_own_is_proved,
    test_a_pods_namespace_that_has_a_second_name_by_hand_is_known_by_either,
    test_a_static_pod_is_known_by_the_hash_in_its_cgroup,
    test_ip_netns_used_by_hand_on_the_node_hides_no_pod,
    test_namespaces_of_pods_that_start_later_come_to_net,
    test_net_has_three_capabilities_and_serve_none_both_under_the_runtimes_seccomp,
    test_the_agents_pod_says_nothing_is_wrong,
    test_the_root_of_the_agents_containers_is_read_only,
    test_what_net_holds_of_a_pods_network_goes_with_the_pod,
)
from tests.kubernetes.conftest import needs_kubernetes
from tests.root import needs_root

__all__ = [
    "test_a_bound_pod_has_a_token_and_one_without_a_right_is_refused",
    "test_a_neighbours_address_gives_nothing",
    "test_a_pod_that_asks_in_its_first_instruction_has_a_token",
    "test_a_pod_without_any_right_of_its_own_is_proved",
    "test_a_pods_namespace_that_has_a_second_name_by_hand_is_known_by_either",
    "test_a_static_pod_is_known_by_the_hash_in_its_cgroup",
    "test_ip_netns_used_by_hand_on_the_node_hides_no_pod",
    "test_namespaces_of_pods_that_start_later_come_to_net",
    "test_net_has_three_capabilities_and_serve_none_both_under_the_runtimes_seccomp",
    "test_the_agents_pod_says_nothing_is_wrong",
    "test_the_root_of_the_agents_containers_is_read_only",
    "test_what_net_holds_of_a_pods_network_goes_with_the_pod",
]

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]
