"""The proof of one variant: its graphs and its server on the requests that the model has answered."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from media import Modality
from media.progress import OnProgress
from runtime import Bundle, Zorro

from .bundle_outputs import ask_server, run_graphs
from .http_client import ServerFault, batch_sizes
from .model_outputs import ModelReference
from .proof_requests import ComparedLabels, ProofRequest, RequestOutput, StreamOutputs
from .stream_agreement import StreamAgreement, limits_of, same_graph_limits

NUM_CLIENTS = 8

Serve = Callable[[Bundle, str, int], AbstractContextManager[int]]
"""Serves a variant of a bundle to so many clients as long as the context lasts; gives the port."""


class ProofError(ValueError):
    """Outputs differ by more than they may; the message names variant, what ran, stream, figure and limit."""


class VariantProof:
    """Collects the outputs of one variant and compares them.

    Outputs are kept by what ran: `model`, `graph` (the runtime in this process) or `http` (a server).
    """

    def __init__(self, variant: str, reference: ModelReference, compared: ComparedLabels) -> None:
        self._variant, self._reference = variant, reference
        self._compared, self._index = compared, {name: i for i, name in enumerate(compared.ids)}
        self._outputs = {"model": reference.outputs}
        self._found: dict[str, Any] = {"limits": {}}

    def check_graphs(self, bundle: Bundle, on_progress: OnProgress) -> None:
        """Run the graphs in this process.

        Raises:
            ProofError: they differ from the model.
        """
        model = Zorro(bundle, variant=self._variant)
        requests = self._reference.requests
        self._keep("graph", (run_graphs(model, request, self._compared) for request in requests), on_progress)
        self._compare("graph", "model", limits_of(self._variant))

    def check_server(self, bundle: Bundle, serve: Serve, on_progress: OnProgress) -> None:
        """Ask a server, by several clients at once, so that its batches mix windows of different clips.

        Raises:
            ProofError: it fails, or differs from the model or from the graphs.
        """
        # The server ends before the clients: whoever interrupts does not wait for all that they still have to
        # ask.
        try:
            with (
                ThreadPoolExecutor(NUM_CLIENTS) as clients,
                serve(bundle, self._variant, NUM_CLIENTS) as port,
            ):
                outputs = clients.map(
                    lambda request: ask_server(port, request, self._compared), self._reference.requests
                )
                self._keep("http", outputs, on_progress)
                self._found |= {"clients": NUM_CLIENTS, "windows_of_batches": batch_sizes(port)}
        except ServerFault as error:
            raise ProofError(f"{self._variant}, http: {error}") from error
        self._compare("http", "model", limits_of(self._variant))
        self._compare("http", "graph", same_graph_limits(self._variant))

    def report(self) -> dict[str, Any]:
        """All that was found, as the manifest says it under `end_to_end`."""
        requests = self._reference.requests
        streams = {request.stream_name(modality) for request in requests for modality in request.modalities}
        timed = sorted(
            (request for request in requests if request.seconds is not None),
            key=lambda request: request.seconds or 0.0,
        )
        extremes = {"shortest": timed[0], "longest": timed[-1]} if timed else {}
        return {
            "clips": len({request.item for request in requests}),
            "unread": self._reference.unreadable,
            "not_asked": [str(modality) for modality in Modality if modality not in streams],
            **self._found,
            **{name: self._errors_of(request) for name, request in extremes.items()},
        }

    def _keep(self, source: str, outputs: Iterable[StreamOutputs], on_progress: OnProgress) -> None:
        self._outputs[source] = []
        for done, output in enumerate(outputs, 1):
            self._outputs[source].append(output)
            on_progress(f"{self._variant}: {source}", done, len(self._reference.requests))

    def _compare(self, source: str, against: str, limits: Mapping[str, float]) -> None:
        name = source if against == "model" else f"{source}_against_{against}"
        agreements: dict[str, StreamAgreement] = defaultdict(StreamAgreement)
        for request, outputs, wanted in zip(
            self._reference.requests, self._outputs[source], self._outputs[against], strict=True
        ):
            truth = {self._index[label] for label in request.item.labels}
            for stream, got in outputs.items():
                self._check_shapes(f"{name}, {stream}", request, got, wanted[stream])
                agreements[stream].add(got, wanted[stream], truth)
        for stream, agreement in agreements.items():
            if excess := agreement.excess(limits):
                raise ProofError(f"{self._variant}, {name}, {stream}: {excess}; export the bundle again")
        self._found["limits"][name] = dict(limits)
        self._found[name] = {stream: agreement.figures() for stream, agreement in agreements.items()}

    def _check_shapes(
        self, what: str, request: ProofRequest, got: RequestOutput, wanted: RequestOutput
    ) -> None:
        shapes = [[array.shape for array in output] for output in (got, wanted)]
        if shapes[0] != shapes[1]:
            raise ProofError(
                f"{self._variant}, {what}: {request.item.path.name} has outputs of the shapes {shapes[0]}, "
                f"wanted {shapes[1]}; export the bundle again"
            )

    def _errors_of(self, chosen: ProofRequest) -> dict[str, Any]:
        """How far each source is off on one clip, over all streams."""
        found: dict[str, Any] = {"file": chosen.item.path.name, "seconds": chosen.seconds}
        if chosen.item.end_seconds is not None:
            found["start_seconds"] = chosen.item.start_seconds
        for source in self._outputs.keys() - {"model"}:
            agreement = StreamAgreement()
            for request, outputs, wanted in zip(
                self._reference.requests, self._outputs[source], self._reference.outputs, strict=True
            ):
                for stream in wanted if request.item == chosen.item else ():
                    agreement.add(outputs[stream], wanted[stream], set())
            found[source] = {
                "max_score_error": agreement.scores.max_abs_error,
                "max_embedding_error": agreement.embeddings.max_abs_error,
            }
        return found
