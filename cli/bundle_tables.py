"""Tables of a bundle: its variants with their agreement with the model, and the tensors of its graphs."""

from typing import TYPE_CHECKING

from rich.table import Table

from .console import make_table

if TYPE_CHECKING:
    from runtime import Bundle


def parity_table(bundle: "Bundle") -> Table:
    """A row per variant and stream, with its worst agreement with the model at export.

    The last column is the size of the variant.
    """
    from runtime.bundle_facts import variant_facts

    title = f"{bundle.name}/{bundle.version}: worst difference from the model"
    table = make_table("variant", "stream", "max error", "cosine", "same top-1", "size", title=title)
    for name in bundle.variants:
        facts = variant_facts(bundle, name)
        names = [name, *[""] * len(facts.parity)]
        sizes = [f"{facts.file_bytes / 1e6:.1f} MB", *[""] * len(facts.parity)]
        if not facts.parity:
            table.add_row(name, "", "", "", "", sizes[0])
        for label, size, x in zip(names, sizes, facts.parity, strict=False):
            agreement = "" if x.top1_agreement is None else f"{x.top1_agreement:.1%}"
            table.add_row(label, x.stream, f"{x.max_abs_error:.2g}", f"{x.min_cosine:.6f}", agreement, size)
    return table
