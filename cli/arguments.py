"""Arguments and options that several commands share, and the bundle that is used where none is given."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runtime import Bundle, Variant

DEFAULT_BUNDLE = Path("everyday", "1")
"""Below a model repository."""
_ELSEWHERE = "default everyday/1 of ZORRO_BUNDLES, of ./bundles or of the checkout"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder NAME/VERSION of a bundle.")]
BundleOrDefault = Annotated[
    Path | None,
    typer.Argument(metavar="[BUNDLE]", help=f"Folder NAME/VERSION of a bundle; {_ELSEWHERE}."),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help=f"Folder NAME/VERSION of a bundle; {_ELSEWHERE}.")
]
VariantOption = Annotated[
    str | None, typer.Option(help="Which variant; default the one that the bundle gives to a CPU.")
]


def model_repositories() -> list[Path]:
    """Folders of bundles to look in where none is given: of ZORRO_BUNDLES, or of here and of the checkout."""
    configured = os.environ.get("ZORRO_BUNDLES")
    if configured:
        return [Path(configured)]
    return [Path("bundles"), Path(__file__).resolve().parents[1] / "bundles"]


def bundle_or_default(given: Path | None) -> Path:
    """The bundle that was given, or else the default one.

    Raises:
        BundleNotFound: none was given, and the default one is in none of the model repositories.
    """
    if given is not None:
        return given
    candidates = [repository / DEFAULT_BUNDLE for repository in model_repositories()]
    for candidate in candidates:
        if (candidate / "bundle.json").is_file():
            return candidate
    from runtime.errors import BundleNotFound

    raise BundleNotFound(
        f"no bundle was given, and the default one is not at {' or '.join(map(str, candidates))}; "
        "give a folder NAME/VERSION, or set ZORRO_BUNDLES to the folder that holds everyday/1"
    )


def open_variant(path: Path, name: str | None) -> "tuple[Bundle, Variant]":
    """A verified bundle and one of its variants.

    Raises:
        BundleError: the bundle cannot be used.
        InvalidOption: it has no variant of this name.
    """
    from runtime import read_bundle
    from runtime.providers import CPU

    bundle = read_bundle(path)
    return bundle, bundle.variant(name, provider=CPU)
