"""From bytes to an answer: a bundle's graphs, and a real server on them, answer a collection as the checkpoint's model does.

Three ways lead from the same bytes to scores and embeddings: `media` and the torch model; `runtime.Zorro`;
    and `zorro serve` in a process of its own, asked over HTTP by several clients at once, so that its batches
    mix windows of different clips. Export holds graphs against the model window by window; here it is all
    that users get: reading, the choice of a graph, pooling, softmax or sigmoid, the order of labels,
    encoding. What was found goes into the bundle's manifest as `end_to_end`.
"""

import base64
import http.client
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax

from datasets.layouts import read_items
from datasets.manifests import Item
from datasets.recordings import window_start
from evaluation.predictors import ModelPredictor, Predictor
from export.atomic_folder import replace_folder
from export.bundle_writer import seal_bundle
from export.checkpoint_scores import learned_scores
from export.variants import TOLERANCES
from media import ClipSpec, Modality
from media.errors import MediaError
from media.modality_check import available_modalities, read_modalities
from media.pooling import pool, window_weights
from media.probe import MediaInfo, probe
from media.time_range import TimeRange
from models.weights import load_checkpoint
from runtime import Bundle, ClipResult, Scores, StreamResult, Zorro, read_bundle
from runtime.signature import graphs_for
from training.recipe import trained_spans

from .checkpoint_source import open_origin

NUM_CLIENTS = 8
HOST = "127.0.0.1"
READY_SECONDS = 300.0  # to load, self-test and listen
REQUEST_SECONDS = 600.0
STOP_SECONDS = 15.0
MAX_SCORE_ERROR = (
    0.25  # of a label's probability, where the tolerance of logits is so wide that it says little
)
MAX_POINTS = 0.5  # of top-1 accuracy, up or down
SAME_GRAPH_ERROR = 1e-5
"""Of scores and embeddings of a float32 graph in other batches, which may sum in another order."""
SAME_GRAPH_SHARE = 0.1
"""Of what a variant of fewer bits may be off from the model: a sum that lies between two steps may round the other way."""
AT_LEAST = ("min_cosine", "top1_agreement")
"""Figures that must not be less than their limit; others must not be more."""

Progress = Callable[[str, int, int], None]
"""Told a stage, and how many of how many clips are done."""
Serve = Callable[[Bundle, str], AbstractContextManager[int]]
"""Serves a variant of a bundle on this machine as long as the context lasts; gives the port."""


class ProofError(ValueError):
    """A way answers otherwise than it should; the message names variant, way, stream, figure and limit."""


class ServerFault(Exception):
    """The server ended, was not ready in time, serves something else, or did not answer a question."""


class Answer(NamedTuple):
    """Of one stream to one clip: in the first row of the whole clip, then of each window."""

    scores: np.ndarray
    """[1 + windows, labels], probabilities in the order of the checkpoint's labels."""
    embeddings: np.ndarray
    """[1 + windows, projection_dim], of unit length."""


Answers = dict[str, Answer]
"""By stream, as `Ask.stream` calls it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: a file or a span of one, and the streams that shall answer."""

    item: Item
    modalities: tuple[Modality, ...]
    start_seconds: float
    end_seconds: float | None
    seconds: float | None
    """How long the clip is; None of a still."""

    def stream(self, modality: Modality) -> str:
        """What a modality's answer is called: by its graph too, where the fused one answers for sound or picture."""
        graph = graphs_for(self.modalities)[0]
        return str(modality) if modality == graph else f"{graph}.{modality}"


def prove_bundle(
    path: Path,
    checkpoint: Path | None,
    data: Path,
    *,
    split: str = "test",
    serve: Serve | None = None,
    only_graphs: bool = False,
    on_progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Prove every variant of the bundle at `path` on a split of a collection; what was found is written into the bundle.

    Args:
        path: folder of the bundle.
        checkpoint: folder of the checkpoint that it was exported from; None for the one in the bundle.
        data: folder of a collection, in any layout of `datasets.layouts`.
        split: of the collection.
        serve: starts the server; default `serve_bundle`.
        only_graphs: leave HTTP out; nothing is written then, since half a proof is none.
        on_progress: told of each stage.

    Returns:
        What the manifest says under `end_to_end`, by variant.

    Raises:
        ProofError: a variant differs from the model, or the server from the graph, by more than it may;
            nothing is written.
        ValueError: nothing of the split can be read, bundle or split have other labels than the checkpoint,
            or a variant is unknown.
        BundleError, CheckpointError: see there.
    """
    origin = open_origin(checkpoint or path).checkpoint
    bundle, loaded = read_bundle(path.resolve()), load_checkpoint(origin)
    ids = [str(label["id"]) for label in loaded.labels]
    if sorted(ids) != sorted(label.id for label in bundle.labels):
        raise ValueError(
            f"{path} has other labels than {origin}; give the checkpoint that it was exported from"
        )
    if strange := sorted(bundle.variants.keys() - TOLERANCES.keys()):
        raise ValueError(
            f"{path} has the variants {strange}, of which nothing is known; there are {', '.join(TOLERANCES)}"
        )
    items = [item for item in trained_spans(loaded.extra).of(read_items(data).items) if item.split == split]
    if unknown := sorted({label for item in items for label in item.labels} - {*ids}):
        raise ValueError(
            f"{data} has labels that the model does not know: {', '.join(unknown[:5])}; give its collection"
        )
    spec, scores = ClipSpec.from_dict(loaded.clip_spec), learned_scores(loaded)
    truth = ask_model(ModelPredictor(loaded.model), items, spec, scores, on_progress)
    if not truth.asks:
        raise ValueError(
            f"nothing can be read of the split {split!r} of {data}: {len(items)} files, {truth.unread}"
        )
    report = {}
    for variant in bundle.variants:
        proof = _Proof(variant, truth, ids)
        proof.ask_graphs(bundle, on_progress)
        if not only_graphs:
            proof.ask_server(bundle, serve or serve_bundle, on_progress)
        report[variant] = {"collection": data.resolve().name, "split": split} | proof.report()
    if not only_graphs:
        _write(bundle, report)
    return report


@dataclass(frozen=True, slots=True)
class Truth:
    """What the model answers."""

    asks: list[Ask]
    """Those of one graph follow each other, so that they meet in a server's batches."""
    answers: list[Answers]
    """To each."""
    unread: dict[str, int]
    """How many items `media` refuses, by code."""


def ask_model(
    predictor: Predictor, items: Sequence[Item], spec: ClipSpec, scores: Scores, on_progress: Progress
) -> Truth:
    """By `media` and the torch model, each stream by itself."""
    found: list[tuple[Ask, Answers]] = []
    unread: Counter[str] = Counter()
    for number, item in enumerate(items, 1):
        try:
            asks = make_asks(item, probe(item.path), spec)
            found += [(ask, _by_model(predictor, ask, spec, scores)) for ask in asks]
        except MediaError as error:
            unread[error.code] += 1
        on_progress("model", number, len(items))
    found.sort(key=lambda pair: pair[0].modalities)
    return Truth([ask for ask, _ in found], [answers for _, answers in found], dict(unread))


def make_asks(item: Item, info: MediaInfo, spec: ClipSpec) -> Iterator[Ask]:
    """An item is asked for all that it has at once, and for sound and for picture alone if it has both: every graph answers.

    A span shorter than a window is asked as one window around it, which is how such spans are learned.

    Raises:
        MediaError: it has nothing of what its modality names.
    """
    named = [modality for modality in Modality if item.modality in ("both", modality)]
    present = available_modalities(named, info, require_all=False)
    start, end = item.start_seconds, item.end_seconds
    stop = info.duration_seconds if end is None else end
    seconds = None if stop is None else stop - start
    if end is not None and end - start < spec.window_seconds:
        start = window_start(item, spec, info.duration_seconds or 0.0)
        end = start + spec.window_seconds
    alone = [(modality,) for modality in present if len(present) > 1 and modality != Modality.FUSED]
    for modalities in (tuple(present), *alone):
        yield Ask(item, modalities, start, end, seconds)


def _by_model(predictor: Predictor, ask: Ask, spec: ClipSpec, scores: Scores) -> Answers:
    _, reader = read_modalities(
        ask.item.path.read_bytes(),
        spec,
        ask.modalities,
        require_all=True,
        times=TimeRange(start_seconds=ask.start_seconds, end_seconds=ask.end_seconds),
    )
    windows = list(reader)
    found = {}
    for modality in ask.modalities:
        values, weights = predictor.outputs(modality, windows), window_weights(windows, modality)
        vectors = _whole_and_windows(values["embedding"], weights)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        found[ask.stream(modality)] = Answer(_probabilities(values["logits"], weights, scores), unit)
    return found


def _probabilities(logits: np.ndarray, weights: np.ndarray, scores: Scores) -> np.ndarray:
    if scores == Scores.SIGMOID:
        return _whole_and_windows(expit(logits.astype(np.float64)), weights)
    return softmax(_whole_and_windows(logits, weights).astype(np.float64), axis=1)


def _whole_and_windows(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.vstack([pool(values, weights), values])


def _by_graph(model: Zorro, ask: Ask, ids: Sequence[str]) -> Answers:
    content, start, end = ask.item.path.read_bytes(), ask.start_seconds, ask.end_seconds
    labels = model.classify(
        content, modalities=ask.modalities, top_k=len(ids), start_seconds=start, end_seconds=end
    )
    vectors = model.embed(content, modalities=ask.modalities, start_seconds=start, end_seconds=end)
    found = {}
    for modality in ask.modalities:
        scores = [{x.id: x.score for x in row.labels or ()} for row in _rows(labels, modality)]
        embeddings = [row.embedding for row in _rows(vectors, modality)]
        found[ask.stream(modality)] = Answer(_in_order(scores, ids), np.stack(embeddings))
    return found


def _rows(result: ClipResult, modality: Modality) -> list[StreamResult]:
    return [result.whole[modality], *(window.streams[modality] for window in result.windows)]


def _in_order(rows: Sequence[Mapping[str, float]], ids: Sequence[str]) -> np.ndarray:
    """[rows, labels]; NaN for a label that has no score."""
    return np.array([[row.get(name) for name in ids] for row in rows], np.float64)


def _by_server(port: int, ask: Ask, ids: Sequence[str]) -> Answers:
    fields = {"modalities": ",".join(ask.modalities), "start_sec": repr(ask.start_seconds)}
    if ask.end_seconds is not None:
        fields["end_sec"] = repr(ask.end_seconds)
    labels = _served_rows(port, "classify", ask.item.path, fields | {"top_k": str(len(ids))})
    vectors = _served_rows(port, "embed", ask.item.path, fields | {"encoding_format": "base64"})
    found = {}
    for modality in ask.modalities:
        scores = [{x["id"]: x["score"] for x in row["labels"]} for row in labels[modality]]
        embeddings = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in vectors[modality]]
        found[ask.stream(modality)] = Answer(_in_order(scores, ids), np.stack(embeddings))
    return found


def _served_rows(
    port: int, task: str, path: Path, fields: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """By modality, the whole's and then each window's."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for scope in ("asset", "clip"):
        for row in json.loads(_request(port, f"/v1/{task}", _form(path, {**fields, "scope": scope})))["data"]:
            found[row["modality"]].append(row)
    return found


@dataclass(slots=True)
class Tally:
    """How far a stream's answers are from those wanted, over the clips so far."""

    clips: int = 0
    windows: int = 0
    max_score_error: float = 0.0
    max_embedding_error: float = 0.0
    min_cosine: float = 1.0
    num_agreements: int = 0
    hits: list[tuple[bool, bool]] = field(default_factory=list)
    """Whether the best label is one of the clip's: as answered, and as wanted. Of labelled clips."""

    def add(self, got: Answer, wanted: Answer, truth: set[int]) -> None:
        """Take in one clip; `truth` are its labels."""
        # A NaN would lose every comparison, and so pass.
        scores, embeddings = (
            np.nan_to_num(np.abs(x - y), nan=np.inf) for x, y in zip(got, wanted, strict=True)
        )
        cosines = np.nan_to_num((got.embeddings * wanted.embeddings).sum(1), nan=-1.0)
        best, other = int(got.scores[0].argmax()), int(wanted.scores[0].argmax())
        self.clips, self.windows = self.clips + 1, self.windows + len(scores) - 1
        self.max_score_error = max(self.max_score_error, float(scores.max()))
        self.max_embedding_error = max(self.max_embedding_error, float(embeddings.max()))
        self.min_cosine = min(self.min_cosine, float(cosines.min()))
        self.num_agreements += best == other
        if truth:
            self.hits.append((best in truth, other in truth))

    def figures(self) -> dict[str, float]:
        """By name; accuracies where there are labels."""
        found: dict[str, float] = {
            "clips": self.clips,
            "windows": self.windows,
            "max_score_error": self.max_score_error,
            "max_embedding_error": self.max_embedding_error,
            "min_cosine": self.min_cosine,
            "top1_agreement": self.num_agreements / self.clips,
        }
        if self.hits:
            own, wanted = np.sum(self.hits, axis=0).tolist()
            count = len(self.hits)
            found |= {
                "top1": own / count,
                "top1_wanted": wanted / count,
                "top1_points": 100 * abs(own - wanted) / count,
            }
        return found

    def excess(self, limits: Mapping[str, float]) -> str | None:
        """The first figure that does not keep its limit; of accuracy one clip is always allowed."""
        figures = self.figures()
        for name, limit in limits.items():
            value = figures.get(name, limit)
            allowed = max(limit, 100 / len(self.hits)) if name == "top1_points" and self.hits else limit
            if not (value >= allowed if name in AT_LEAST else value <= allowed):
                return f"{name} is {value:.4g}, the limit is {allowed:.4g}"
        return None


class _Proof:
    """Of one variant."""

    def __init__(self, variant: str, truth: Truth, ids: Sequence[str]) -> None:
        self._variant, self._truth, self._ids = variant, truth, ids
        self._answers = {"model": truth.answers}
        self._found: dict[str, Any] = {"limits": {}}

    def ask_graphs(self, bundle: Bundle, on_progress: Progress) -> None:
        """By the runtime, in this process; raises ProofError."""
        model = Zorro(bundle, variant=self._variant)
        self._keep("graph", (_by_graph(model, ask, self._ids) for ask in self._truth.asks), on_progress)
        self._compare("graph", "model", limits_of(self._variant))

    def ask_server(self, bundle: Bundle, serve: Serve, on_progress: Progress) -> None:
        """Over HTTP, by several clients at once; raises ProofError."""
        # The server ends before the clients: whoever interrupts does not wait for all that they still have to
        # ask.
        try:
            with ThreadPoolExecutor(NUM_CLIENTS) as clients, serve(bundle, self._variant) as port:
                answers = clients.map(lambda ask: _by_server(port, ask, self._ids), self._truth.asks)
                self._keep("http", answers, on_progress)
                self._found |= {"clients": NUM_CLIENTS, "windows_of_batches": _windows_of_batches(port)}
        except ServerFault as error:
            raise ProofError(f"{self._variant}, http: {error}") from error
        self._compare("http", "model", limits_of(self._variant))
        self._compare("http", "graph", same_graph_limits(self._variant))

    def report(self) -> dict[str, Any]:
        """All that was found."""
        asks = self._truth.asks
        streams = {ask.stream(modality) for ask in asks for modality in ask.modalities}
        timed = sorted((ask for ask in asks if ask.seconds is not None), key=lambda ask: ask.seconds or 0.0)
        return {
            "clips": len({ask.item for ask in asks}),
            "unread": self._truth.unread,
            "not_asked": [str(modality) for modality in Modality if modality not in streams],
            **self._found,
            **({"shortest": self._one(timed[0]), "longest": self._one(timed[-1])} if timed else {}),
        }

    def _keep(self, way: str, answers: Iterable[Answers], on_progress: Progress) -> None:
        self._answers[way] = []
        for done, answer in enumerate(answers, 1):
            self._answers[way].append(answer)
            on_progress(f"{self._variant}: {way}", done, len(self._truth.asks))

    def _compare(self, way: str, against: str, limits: Mapping[str, float]) -> None:
        name = way if against == "model" else f"{way}_against_{against}"
        tallies: dict[str, Tally] = defaultdict(Tally)
        for ask, answers, wanted in zip(
            self._truth.asks, self._answers[way], self._answers[against], strict=True
        ):
            for stream, got in answers.items():
                if [x.shape for x in got] != [x.shape for x in wanted[stream]]:
                    shapes = [[x.shape for x in answer] for answer in (got, wanted[stream])]
                    what = f"{ask.item.path.name} has answers of the shapes {shapes[0]}, wanted {shapes[1]}"
                    raise ProofError(f"{self._variant}, {name}, {stream}: {what}; export the bundle again")
                tallies[stream].add(
                    got, wanted[stream], {self._ids.index(label) for label in ask.item.labels}
                )
        for stream, tally in tallies.items():
            if excess := tally.excess(limits):
                raise ProofError(f"{self._variant}, {name}, {stream}: {excess}; export the bundle again")
        self._found["limits"][name] = dict(limits)
        self._found[name] = {stream: tally.figures() for stream, tally in tallies.items()}

    def _one(self, chosen: Ask) -> dict[str, Any]:
        """How far each way is off on one clip, over all streams."""
        found: dict[str, Any] = {"file": chosen.item.path.name, "seconds": chosen.seconds}
        if chosen.item.end_seconds is not None:
            found["start_seconds"] = chosen.item.start_seconds
        for way in self._answers.keys() - {"model"}:
            tally = Tally()
            for ask, answers, wanted in zip(
                self._truth.asks, self._answers[way], self._truth.answers, strict=True
            ):
                for stream in wanted if ask.item == chosen.item else ():
                    tally.add(answers[stream], wanted[stream], set())
            found[way] = {
                "max_score_error": tally.max_score_error,
                "max_embedding_error": tally.max_embedding_error,
            }
        return found


def limits_of(variant: str) -> dict[str, float]:
    """What a variant's answers to real clips may differ by from the model's: what export allows.

    Softmax moves by at most half of what the farthest logit does, so half of their tolerance is that of
    scores; a sigmoid moves by a quarter.
    """
    tolerance = TOLERANCES[variant]
    return {
        "max_score_error": min(tolerance.max_abs_error / 2, MAX_SCORE_ERROR),
        "min_cosine": tolerance.min_cosine,
        "top1_agreement": tolerance.min_top1_agreement,
        "top1_points": MAX_POINTS,
    }


def same_graph_limits(variant: str) -> dict[str, float]:
    """What a variant's answers over HTTP may differ by from the same graph's in this process, whose batches are others."""
    if variant == "fp32":
        return {"max_score_error": SAME_GRAPH_ERROR, "max_embedding_error": SAME_GRAPH_ERROR}
    limits = limits_of(variant)
    distance = math.sqrt(2 * (1 - limits["min_cosine"]))  # of unit vectors with this cosine
    return {
        "max_score_error": SAME_GRAPH_SHARE * limits["max_score_error"],
        "max_embedding_error": SAME_GRAPH_SHARE * distance,
    }


@contextmanager
def serve_bundle(bundle: Bundle, variant: str) -> Iterator[int]:
    """`zorro serve` of this bundle alone, in a process of its own, as long as the context lasts; gives its port.

    Raises:
        ServerFault: it ends, is not ready in time, or serves something else.
    """
    with tempfile.TemporaryDirectory(prefix="zorro-proof-") as folder:
        place = Path(folder) / "bundles" / bundle.name / bundle.version
        place.parent.mkdir(parents=True)
        place.symlink_to(bundle.path, target_is_directory=True)
        port = _free_port()
        settings = {
            "bundles": place.parents[1],
            "variant": variant,
            "host": HOST,
            "port": port,
            "drain_seconds": 0,
            "request_timeout_seconds": REQUEST_SECONDS,
            "temporary_dir": folder,
            "num_sessions": 1,
            "num_decode_workers": NUM_CLIENTS,  # so that windows of several clips wait together
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZORRO_")}
        environment |= {f"ZORRO_{name.upper()}": str(value) for name, value in settings.items()}
        root, log = Path(__file__).parents[1], Path(folder) / "log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "serve"],
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
        try:
            _wait_until_ready(server, port, log)
            check_served(port, bundle, variant)
            yield port
        finally:
            _stop(server)


def _free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probed:
        probed.bind((HOST, 0))
        return int(probed.getsockname()[1])


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServerFault(
                f"the server ended with status {server.returncode} before it was ready: {_reason(log)}"
            )
        with suppress(ServerFault):  # nobody listens yet
            status, _ = _exchange(port, "/readyz")
            if status == 200:
                return
            if status != 503:
                break
        time.sleep(0.1)
    raise ServerFault(f"the server was not ready within {READY_SECONDS:g} s: {_reason(log)}")


def _reason(log: Path) -> str:
    """Why the server did not load its models, or the last that it said."""
    said = log.read_text(errors="replace").strip()
    found = re.search(r"the models could not be loaded: [^\"\\]+", said)
    return found[0] if found else said[-500:]


def check_served(port: int, bundle: Bundle, variant: str) -> None:
    """Raise ServerFault unless the server serves this variant of this bundle."""
    served = [(x["sha256"], x["variant"]) for x in json.loads(_request(port, "/v1/models"))["data"]]
    if served != [(bundle.sha256, variant)]:
        raise ServerFault(f"the server serves {served}, and not {variant} of {bundle.path}, {bundle.sha256}")


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server, politely first."""
    server.terminate()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _form(path: Path, fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Content type and body of multipart/form-data."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'
        for k, v in fields.items()
    ]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n')
    body = "".join(parts).encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


def _request(port: int, route: str, form: tuple[str, bytes] | None = None) -> bytes:
    """What the server answers; raises ServerFault if it does not, or with another status than 200."""
    status, content = _exchange(port, route, form)
    if status != 200:
        raise ServerFault(
            f"{route} was answered with status {status}: {content[:300].decode(errors='replace')}"
        )
    return content


def _exchange(port: int, route: str, form: tuple[str, bytes] | None = None) -> tuple[int, bytes]:
    """Status and content of the answer to GET, or to POST of a form; raises ServerFault if there is none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=REQUEST_SECONDS)
    try:
        if form is None:
            connection.request("GET", route)
        else:
            connection.request("POST", route, form[1], {"Content-Type": form[0]})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerFault(f"{route} was not answered: {error!r}") from error
    finally:
        connection.close()


def _windows_of_batches(port: int) -> dict[str, int]:
    """How many of the server's batches had so many windows."""
    text = _request(port, "/metrics").decode()
    counts = re.findall(r'^zorro_batch_size_bucket{le="([0-9.]+)"} ([0-9.]+)$', text, flags=re.MULTILINE)
    found, before = {}, 0
    for size, total in counts:
        found[str(int(float(size)))] = int(float(total)) - before
        before = int(float(total))
    return found


def _write(bundle: Bundle, report: dict[str, Any]) -> None:
    """Put the report into the bundle: a copy is made beside it, sealed and verified, and takes its place.

    `bundle.json` and its seal cannot be replaced in one step, but a folder can be moved. Whatever fails, what
    stood there comes back; only an end of the machine between the two moves leaves it, whole, in a folder
    `.part-*` beside its place.
    """
    manifest = {name: value for name, value in bundle.manifest.items() if name != "files"} | {
        "end_to_end": report
    }
    with tempfile.TemporaryDirectory(dir=bundle.path.parent, prefix=".part-") as part:
        folder = Path(part) / "bundle"
        shutil.copytree(bundle.path, folder)
        if read_bundle(folder).sha256 != bundle.sha256:
            raise ProofError(f"{bundle.path} was replaced while it was being proven; prove it again")
        seal_bundle(folder, manifest)
        read_bundle(folder)
        replace_folder(folder, bundle.path, aside=Path(part) / "replaced")
