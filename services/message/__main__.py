"""`python -m services.message` runs the service."""

from services.common import start  # noqa: F401

# isort: split
from services.common.server import run
from services.common.settings import load
from services.message.app import create_app
from services.message.settings import Settings


def main() -> None:
    settings = load(Settings)
    run(create_app(settings), settings=settings)


if __name__ == "__main__":
    main()
