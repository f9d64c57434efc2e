"""`python -m services.guestbook` runs the service."""

from services.common import start  # noqa: F401

# isort: split
from services.common.health import Check
from services.common.server import run
from services.common.settings import load
from services.guestbook.app import create_app
from services.guestbook.settings import Settings
from services.guestbook.storage import Storage


def main() -> None:
    settings = load(Settings)
    storage = Storage(settings.url())
    app = create_app(settings, storage)
    run(app, settings=settings, checks=[Check("database", storage.probe)])


if __name__ == "__main__":
    main()
