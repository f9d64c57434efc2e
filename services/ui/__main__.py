"""`python -m services.ui` runs the ui."""

from services.common import start  # noqa: F401

# isort: split
from services.common.health import Check
from services.common.server import run
from services.common.settings import load
from services.ui.app import create_app
from services.ui.sessions import Sessions
from services.ui.settings import Settings


def main() -> None:
    settings = load(Settings)
    sessions = Sessions(settings)
    app = create_app(settings, sessions)
    run(app, settings=settings, checks=[Check("redis", sessions.probe)])


if __name__ == "__main__":
    main()
