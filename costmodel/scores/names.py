"""What the sources of scores call models and methods, and what they are called here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from costmodel.catalog.yaml_files import read_yaml_mapping

__all__ = ["Names", "Source", "load_names"]

_FILE = "names.yaml"


@dataclass(frozen=True)
class Source:
    """Where a table of scores is.

    Attributes
    ----------
    label : str
        Short name.
    url : str
        Paper or repository.
    seen : str
        What was read instead of the source; empty where it was the source.
    variants : dict of str to str
        Methods that are a variant in this source, by the name they have there.
    """

    label: str
    url: str
    seen: str = ""
    variants: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """The sources, and their names for models and methods.

    Attributes
    ----------
    models : dict of str to str
        Name in the catalogue by published name.
    methods : dict of str to (str, str)
        Method and variant by published name.
    sources : dict of str to Source
        By the name of the table.
    """

    models: dict[str, str]
    methods: dict[str, tuple[str, str]]
    sources: dict[str, Source]

    def method(self, source: str, published: str) -> tuple[str | None, str]:
        """Return the method and the variant that `source` means by `published`.

        Examples
        --------
        >>> load_names().method("FastV Table 1", "FastV(K=2,R=50%)")
        ('fastv', 'K=2, R=50 %')
        >>> load_names().method("FastV Table 1", "Q-Former")
        (None, '')
        """
        if published not in self.methods:
            return None, ""
        name, variant = self.methods[published]
        return name, self.sources[source].variants.get(published, variant)


@cache
def load_names() -> Names:
    """Read the names.

    Examples
    --------
    >>> load_names().models["LLaVA-1.5-7B"]
    'llava-1.5-7b'
    """
    found = read_yaml_mapping(files("costmodel.scores") / "data" / _FILE, _FILE)
    return Names(
        models=found["models"],
        methods={
            published: (item["name"], item.get("variant", ""))
            for published, item in found["methods"].items()
        },
        sources={name: Source(**item) for name, item in found["sources"].items()},
    )
