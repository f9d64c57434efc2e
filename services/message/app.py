from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from services.common.telemetry import FASTAPI_TELEMETRY, outgoing_headers
def create_app(settings):
    app = FastAPI(title="message", telemetry=FASTAPI_TELEMETRY)
    @app.get("/hello/{name:path}")
    async def hello(request: Request):
        return PlainTextResponse("x"+str(outgoing_headers()))
    return app
