"""Doctests are collected from the package; those of rooms whose packages are missing are left out."""

from importlib.util import find_spec

collect_ignore_glob = [
    "tests/*conftest.py",  # read as plugins; as modules with doctests their common name is in the way
    *(
        pattern
        for package, patterns in {
            "torch": ["python/attnflow/capture/*", "python/attnflow/explain.py"],
            "rich": ["python/attnflow/views/terminal.py"],
            "jinja2": ["python/attnflow/views/html.py"],
        }.items()
        if find_spec(package) is None
        for pattern in patterns
    ),
]
