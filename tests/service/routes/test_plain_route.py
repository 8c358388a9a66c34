"""Plain routes: the endpoint's own response, and the errors of an app as everywhere."""

from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.responses import Response

from service.routes.plain_route import PlainRoute


def _client() -> TestClient:
    async def answer(request: Request) -> Response:
        if request.path_params["name"] == "bad":
            raise LookupError("no such name")
        return Response(request.path_params["name"])

    async def on_error(request: Request, error: Exception) -> Response:
        return Response(str(error), 404)

    app = FastAPI()
    app.router.add_api_route("/names/{name}", answer, summary="A name", route_class_override=PlainRoute)
    app.add_exception_handler(LookupError, on_error)
    return TestClient(app)


def test_the_endpoint_answers_and_is_documented() -> None:
    client = _client()
    assert client.get("/names/mine").text == "mine"
    assert client.get("/openapi.json").json()["paths"]["/names/{name}"]["get"]["summary"] == "A name"


def test_an_error_of_the_endpoint_is_the_apps() -> None:
    answer = _client().get("/names/bad")
    assert (answer.status_code, answer.text) == (404, "no such name")
