"""The table of parity with which `zorro export` ends, as printed."""


def assert_is_parity_table(output: str, variants: tuple[str, ...]) -> None:
    """Its last lines are a row for each stream of each variant, within 80 columns."""
    lines = [line.rstrip() for line in output.splitlines()]
    assert all(len(line) <= 80 for line in lines[1:])
    rows = [line.split() for line in lines[-3 * len(variants) :]]
    assert [row[0] for row in rows[::3]] == list(variants)
    assert [stream for row in rows for stream in ("audio", "video", "fusion") if stream in row] == [
        "audio", "video", "fusion",
    ] * len(variants)  # fmt: skip
    for row in rows:
        error, cosine = row[row.index(next(x for x in row if x in ("audio", "video", "fusion"))) + 1 :][:2]
        assert float(error) < 0.05
        assert float(cosine) > 0.9999
