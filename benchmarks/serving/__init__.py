"""The server under load beside its peers; see `bench`."""

from benchmarks.result import Result


def run(rounds: int = 2) -> Result:
    """Measure all servers in turn, `rounds` times."""
    from .bench import (
        measure_servers,  # parts of this package are run as programs, which must not find it loaded
    )

    return measure_servers(rounds)
