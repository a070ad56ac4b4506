from __future__ import annotations

import json

from podidentity.cli import output


def test_a_table_has_columns_as_wide_as_their_cells() -> None:
    lines = output.table(("A", "LONG"), [("wide cell", "x"), ("y", "")]).splitlines()
    assert lines == ["A           LONG", "wide cell   x", "y"]


def test_documents_are_what_kubectl_takes() -> None:
    both = [{"kind": "A", "x": "ä"}, {"kind": "B"}]
    assert output.documents(both, "yaml") == "kind: A\nx: ä\n---\nkind: B"
    assert json.loads(output.documents(both, "json")) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": both,
    }
