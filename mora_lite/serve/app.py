"""The application: the page, and the HTTP interface that it uses itself. Everything else is refused by `guard`."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from .. import __version__
from ..errors import MoraLiteError
from ..scoring.predictor import Predictor
from . import molecule, reasons
from .guard import HEALTH, RETRY, Refusal
from .jobs import DONE, Job, Jobs
from .limits import Limits
from .pages import add_pages
from .reader import SafeReader
from .results import Results, View
from .text import MAX_ANSWERS, MAX_SPELLINGS, TextAnswers
from .worker import ROWS, BusyError, ModelThread

SLICE = 64  # molecules of one request that are scored before others have their turn
MAX_PAGE = 200  # rows of a table at once
DRAWING_SECONDS = 2.0  # of such rows; of large molecules some have no drawing then
LOOK_SECONDS = 2.0  # between two looks whether somebody waits for a download still
ResultT = TypeVar("ResultT")


class Question(BaseModel):
    """What is asked; a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid")


class MoleculeQuestion(Question):
    """One molecule."""

    smiles: str = Field(max_length=Limits.characters, examples=["CC(=O)Oc1ccccc1C(=O)O"])


class TaskQuestion(MoleculeQuestion):
    """One molecule, and one of the pack's tasks."""

    task: str = Field(max_length=200, examples=["logS"])


class MoleculesQuestion(Question):
    """Some molecules."""

    smiles: list[Annotated[str, Field(max_length=Limits.characters)]] = Field(
        max_length=Limits.molecules, examples=[["CCO", "c1ccccc1O"]]
    )


class ReactionQuestion(Question):
    """Molecules or a reaction, and what to ask the text pack about it."""

    smiles: str = Field(
        max_length=Limits.text_characters,
        examples=["CC(=O)O.CCO.OS(=O)(=O)O"],
        description="SMILES joined by dots, or a reaction: `reactants>reagents>product`.",
    )
    task: str = Field(max_length=200, examples=["forward"], description="One of the `tasks` in `/api/info`.")
    top: int = Field(1, ge=1, le=MAX_ANSWERS, description="How many answers, all different, the likeliest first.")
    question: str = Field("", max_length=1000, description="In words, for a pack that takes one.")
    spellings: int = Field(0, ge=0, le=MAX_SPELLINGS, description="How many other orders of the question vote.")


@dataclass
class Service:
    """What the application works with. text: None where no text pack may be asked."""

    worker: ModelThread[Predictor]
    reader: SafeReader
    jobs: Jobs
    limits: Limits
    facts: dict[str, Any]  # of the pack, for the page
    text: TextAnswers | None = None

    async def ask(self, work: Callable[[Predictor], ResultT], priority: int = 0) -> ResultT:
        """What `work(model)` returns. Raises `Refusal` when too much waits or it takes too long."""
        return await self.wait(lambda: self.worker.ask(work, priority))

    async def wait(self, ask: Callable[[], Future[ResultT]]) -> ResultT:
        """What is asked for. Raises `Refusal` when too much waits or it takes too long."""
        try:
            answer = asyncio.wrap_future(ask())
            return await asyncio.wait_for(answer, self.limits.answer_seconds)
        except BusyError as error:
            raise Refusal(503, str(error), RETRY) from None
        except (TimeoutError, asyncio.TimeoutError):
            raise Refusal(503, "the model is busy with other requests; try again in a minute", RETRY) from None

    def job(self, number: str) -> Job:
        """Raises `Refusal` when there is none."""
        job = self.jobs.get(number)
        if job is None:
            raise Refusal(404, "no such table: results are deleted after a while; give the table again")
        return job

    def results(self, number: str) -> tuple[Job, Results]:
        job = self.job(number)
        results = job.results
        if job.state != DONE or results is None:
            raise Refusal(409, job.error or f"the table is not done yet: it is {job.state}")
        return job, results


def make_app(service: Service) -> FastAPI:
    """The application, without its guard."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(service))
        yield
        sweeping.cancel()

    app = FastAPI(
        title="mora-lite",
        version=__version__,
        description="Predicts properties of molecules: values, intervals and domain as `mora-lite predict` has them.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_errors(app)
    add_pages(app)
    _add_molecules(app, service)
    _add_tables(app, service)
    _add_text(app, service)
    _add_results(app, service)
    return app


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(30)
        with suppress(OSError, BusyError):
            await asyncio.to_thread(service.jobs.sweep)
            if service.text is not None:
                service.text.sweep()


def _add_errors(app: FastAPI) -> None:
    """Every error is `{"error": one line}`."""

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first.get("loc", ()))[:100]
        return JSONResponse({"error": f"{place}: {first.get('msg', 'wrong value')}"[:300]}, 422)

    @app.exception_handler(MoraLiteError)
    async def explain(_: Request, error: MoraLiteError) -> Response:
        busy = isinstance(error, BusyError)
        return JSONResponse({"error": str(error)}, 503 if busy else 400, RETRY if busy else None)


def _add_molecules(app: FastAPI, service: Service) -> None:
    parse, reader = service.reader.parse, service.reader

    @app.head(HEALTH, include_in_schema=False)
    @app.get(HEALTH)
    async def health() -> Response:
        """For load balancers, without the token: 200 when the model is loaded, 503 before that."""
        is_ready = service.worker.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @app.get("/api/info")
    async def info() -> dict[str, Any]:
        """The pack, its tasks, the limits, whether the model is loaded, and the text pack that can be asked."""
        return {
            **service.facts,
            "text": None if service.text is None else service.text.describe(),
            "ready": service.worker.is_ready,
            "limits": asdict(service.limits),
        }

    @app.post("/api/molecule")
    async def molecule_of(question: MoleculeQuestion) -> dict[str, Any]:
        """All that is known of one molecule: values, intervals, domain, drawing, nearest training molecules."""
        drawing = asyncio.create_task(asyncio.to_thread(reader.draw, [question.smiles]))
        answer = await service.ask(lambda model: molecule.answer_molecule(model, parse, question.smiles))
        texts = [neighbour["smiles"] for neighbour in answer["neighbours"]]
        drawn = await asyncio.to_thread(reader.draw, texts)
        answer["svg"] = (await drawing)[0]
        for neighbour, svg in zip(answer["neighbours"], drawn, strict=True):
            neighbour["svg"] = svg
        return answer

    @app.post("/api/neighbours")
    async def neighbours_of(question: TaskQuestion) -> list[dict[str, Any]]:
        """The nearest training molecules that have a measured value for one task."""
        found = await service.ask(lambda model: molecule.nearest_of(model, parse, question.smiles, question.task))
        drawn = await asyncio.to_thread(reader.draw, [neighbour["smiles"] for neighbour in found])
        return [neighbour | {"svg": svg} for neighbour, svg in zip(found, drawn, strict=True)]

    @app.post("/api/explain")
    async def explain(question: TaskQuestion) -> dict[str, Any]:
        """A drawing whose atoms are coloured by their contribution to the value of one task."""
        (drawn,) = await asyncio.to_thread(reader.draw, [question.smiles])
        if drawn is None:  # what RDKit cannot draw in its own process is not tried in this one
            raise Refusal(400, "this molecule cannot be drawn")
        return await service.ask(lambda model: reasons.explain(model, question.smiles, question.task))

    @app.post("/api/predict")
    async def predict(question: MoleculesQuestion) -> list[dict[str, Any]]:
        """A row for each SMILES, in order, with the columns of `mora-lite predict`."""
        rows: list[dict[str, Any]] = []
        for start in range(0, len(question.smiles), SLICE):
            part = question.smiles[start : start + SLICE]
            rows += await service.ask(functools.partial(molecule.answer_rows, parse=parse, smiles=part), ROWS)
        return rows


def _add_tables(app: FastAPI, service: Service) -> None:
    jobs = service.jobs

    @app.post("/api/jobs", status_code=202, openapi_extra=_FILE_BODY)
    async def give_table(request: Request, name: Annotated[str, Query(max_length=300)]) -> dict[str, Any]:
        """Give a table: CSV, TSV, a list of SMILES, SDF or XLSX as the body, its file name as `name`."""
        job = await asyncio.to_thread(jobs.new, name)
        try:
            with jobs.upload_path(job).open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
            await asyncio.wrap_future(jobs.start(job))
        except BaseException:
            jobs.remove(job)
            raise
        return jobs.describe(job)

    @app.get("/api/jobs/{number}")
    async def state_of(number: str) -> dict[str, Any]:
        """How far a table is."""
        return jobs.describe(service.job(number))

    @app.delete("/api/jobs/{number}")
    async def stop(number: str) -> dict[str, Any]:
        """Stop the work on a table, and delete its results."""
        job = service.job(number)
        await asyncio.to_thread(jobs.remove, job)
        return {"id": job.id, "deleted": True}


def _add_text(app: FastAPI, service: Service) -> None:
    @app.post("/api/text")
    async def ask_text(question: ReactionQuestion) -> dict[str, Any]:
        """Ask the text pack: the product of a reaction, reactants, reagents, or what the pack is for.

        `balanced`: no atom of the product comes from nowhere. `round_trip`: the reactants give the product back.
        `agreement`: share of the other orders that get the first answer.
        """
        text = service.text
        if text is None:
            raise Refusal(404, "this server has no text pack; start mora-lite serve without --text none")
        asked = text.source.question(
            question.task, question.smiles, question.question, question.top, question.spellings
        )
        row = _without_surrogates(await service.wait(lambda: text.ask(asked)))
        texts = [row["source"], *(answer["text"] for answer in row["answers"] if row["of_molecules"])]
        sides = await asyncio.to_thread(text.draw_sides, texts, service.reader.draw)
        row["molecules"] = sides[0]
        for answer, molecules in zip(row["answers"], sides[1:], strict=False):
            answer["molecules"] = molecules
        return row


Where = Annotated[str, Query(max_length=1000, description="A condition, such as `logS > -4 and similarity > 0.4`.")]
Sort = Annotated[str, Query(max_length=300, description="A column; empty for the order of the file.")]


def _add_results(app: FastAPI, service: Service) -> None:
    @app.get("/api/jobs/{number}/rows")
    async def rows_of(
        number: str,
        start: Annotated[int, Query(ge=0, le=10**9)] = 0,
        count: Annotated[int, Query(ge=0, le=MAX_PAGE)] = 50,
        where: Where = "",
        sort: Sort = "",
        descending: bool = False,
        drawings: bool = False,
    ) -> dict[str, Any]:
        """Rows of a finished table, filtered, sorted, and a page at a time."""
        _, results = service.results(number)

        def read() -> dict[str, Any]:
            order = results.order(View(where, sort, descending))
            rows = results.rows(order[start : start + count])
            if drawings:
                drawn = service.reader.draw([row["smiles"] for row in rows], DRAWING_SECONDS)
                for row, svg in zip(rows, drawn, strict=True):
                    row["svg"] = svg
            return {"n_rows": len(order), "n_all": results.table.num_rows, "start": start, "rows": rows}

        return _without_surrogates(await asyncio.to_thread(read))

    @app.get("/api/jobs/{number}/download", response_class=Response)
    async def download(
        request: Request,
        number: str,
        form: Annotated[str, Query(pattern="^(csv|xlsx|sdf)$")] = "csv",
        where: Where = "",
        sort: Sort = "",
        descending: bool = False,
    ) -> Response:
        """The rows of a finished table as a file, filtered and sorted alike: CSV, XLSX or SDF."""
        job, results = service.results(number)
        view, lay_out = View(where, sort, descending), service.reader.mol_block
        writing = asyncio.wrap_future(service.jobs.download(job, results, view, form, lay_out))
        while not (await asyncio.wait([writing], timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                writing.cancel()
                raise Refusal(408, "whoever asked has gone")
        path = writing.result()
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in Path(job.name).stem)
        return FileResponse(
            path,
            media_type="application/octet-stream",
            filename=f"{name or 'table'}.predictions.{form}",
            background=BackgroundTask(path.unlink, missing_ok=True),
        )


def _without_surrogates(value: Any) -> Any:
    """Texts that JSON can hold: bytes that are not UTF-8 become the replacement character."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


_SURROGATE = re.compile("[\ud800-\udfff]")
_FILE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
