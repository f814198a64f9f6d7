"""Imports go one way, from the last of the FLOORS to the first."""

import ast

import pytest

from tests.helpers import ROOT

# Each floor imports from those before it; the first imports nothing of ours.
FLOORS = [
    {"modules", "utils"},
    {"runtime"},
    {"images"},
    {"image_cache"},
    {"truth"},
    {"dataloader"},
    {"training"},
    {"Trainer", "Tester"},
    {"tools"},
    {"tests"},
]


def imported_names(path):
    """Top-level names of the absolute imports of a file, those within functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("floor", range(len(FLOORS) - 1))
def test_imports_go_one_way(floor):
    for name in FLOORS[floor]:
        forbidden = set.union(*FLOORS[floor:]) - {name}
        files = list((ROOT / name).rglob("*.py")) or [ROOT / f"{name}.py"]
        found = [f"{path.name} imports {other}" for path in files for other in imported_names(path)
                 if other in forbidden]  # fmt: skip
        assert found == []
