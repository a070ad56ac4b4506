"""The tests that `./scripts/test-kernels --quick` runs, in CI: what a kernel may do differently.

All tests of the kernel take half an hour in an emulator, these a few minutes. Each is a question
that only a kernel answers, with real packets. None counts what happens in a second: an emulator on
a busy machine is too slow for that. Tests of one world are taken together, for it is the world that
takes time.
"""

from __future__ import annotations

from tests.machine import pins

KERNELS = tuple(reversed(pins.KERNELS))
"""The oldest first: it lacks most. CI's own kernel is new, so what holds on both holds between."""

_INTERCEPTION = "tests/kernel/test_interception.py"
_DRIFT = "tests/kernel/test_drift.py"
_EXPOSURES = "tests/kernel/test_exposures.py"
_GUARD = "tests/kernel/test_source_guard.py"
_ATTESTATION = "tests/kernel/test_attestation.py"

QUICK = {
    "Are pods intercepted, and never the node; and are the rules listed as they were written?": [
        f"{_INTERCEPTION}::test_without_the_rules_a_pod_reaches_the_real_imds",
        f"{_INTERCEPTION}::test_with_the_rules_every_pod_reaches_the_agent_and_is_known_by_its_address",
        f"{_INTERCEPTION}::test_a_connection_older_than_the_rules_is_reset",
        f"{_INTERCEPTION}::test_pods_are_refused_while_nobody_listens",
        f"{_INTERCEPTION}::test_a_successor_takes_over_rules_that_it_finds",
        f"{_INTERCEPTION}::test_the_node_itself_reaches_the_real_imds_at_all_times",
        f"{_INTERCEPTION}::test_nothing_reached_the_real_imds_but_what_was_to",
        f"{_INTERCEPTION}::test_the_rules_are_these",
        f"{_INTERCEPTION}::test_removal_leaves_only_the_address_where_kept_connections_end",
    ],
    "Does routing close the way to IMDS where all rules are gone, for fragments as well?": [
        f"{_INTERCEPTION}::test_with_all_rules_flushed_and_nobody_to_repair_them_nothing_gets_through",
        f"{_EXPOSURES}::test_fragments_are_intercepted_as_whole_packets_are",
        f"{_EXPOSURES}::test_with_the_agent_dead_and_all_tables_flushed_no_fragment_gets_through",
        f"{_EXPOSURES}::test_a_network_manager_that_removes_foreign_routing_rules_leaves_ours",
        f"{_EXPOSURES}::test_no_packet_of_a_pod_reaches_azure_whatever_is_flushed",
        f"{_EXPOSURES}::test_the_nodes_loopback_stays_closed_when_the_rules_are_flushed",
        f"{_EXPOSURES}::test_the_node_reaches_imds_all_the_time",
    ],
    "Does the kernel tell of each change that others make to our rules?": [
        f"{_DRIFT}::test_whatever_another_process_changes_of_ours_is_put_right_and_nothing_else_is_touched",
    ],
    "Does the guard drop what a pod sends in another's name?": [
        f"{_GUARD}::test_without_the_guard_each_theft_succeeds",
        f"{_GUARD}::test_no_pod_has_a_conversation_in_the_name_of_another_or_of_nobody",
        f"{_GUARD}::test_neither_victim_nor_attacker_loses_its_own",
        f"{_GUARD}::test_the_rules_are_these_and_what_others_change_of_them_is_put_right",
    ],
    "Does the kernel name the pod that asks, by its cgroup and by the state of its socket?": [
        f"{_ATTESTATION}::test_an_ordinary_request_is_proven",
        f"{_ATTESTATION}::test_an_attack_holds_a_conversation_under_the_victims_address_and_is_found_out",
        f"{_ATTESTATION}::test_the_attacker_is_named_where_the_kernel_knows_him",
        f"{_ATTESTATION}::test_no_attack_reached_the_real_imds",
        f"{_ATTESTATION}::test_each_state_of_a_connection_has_its_verdict",
        f"{_ATTESTATION}::test_an_old_socket_of_the_victim_proves_nobody_who_speaks_from_its_port",
    ],
    "Does `net` live, speak and hand over?": ["tests/net"],
}
"""Tests, by their question."""

RUNTIME = (
    "tests/acceptance/runtime",
    # Neither is kubectl in the machine, by which a document looks into a node,
    "--deselect=tests/acceptance/runtime/test_by_hand.py::test_the_documented_commands_bring_up_a_sandbox_with_containers",
    # nor a way to packages, of which this one makes an image.
    "--deselect=tests/acceptance/runtime/test_nodes.py::test_an_image_without_bytecode_serves_only_later",
)
"""The tests that `./scripts/test-kernels --runtime` runs: on a node with a container runtime."""

AS = ("-k", "not rootless")
"""As root. Where a test knows one kind of world alone, as those of drift, that is one without."""


def tests() -> list[str]:
    """Return the arguments of pytest."""
    return [*(each for named in QUICK.values() for each in named), *AS]
