"""The server under load, compared with other model servers; see `bench`."""

from benchmarks.result import Result


def run(rounds: int = 2) -> Result:
    """Measure all servers in turn, `rounds` times."""
    # Parts of this package are run as programs, which must not import all of it.
    from .bench import measure_servers

    return measure_servers(rounds)
