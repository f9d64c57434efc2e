"""What the three services share: settings, logs, telemetry, health, and the server itself.

A service builds a FastAPI application and hands it over; its `__main__` is always the same:

    settings = load(Settings)
    logs.configure(settings)
    run(instrument(create_app(settings), settings), settings=settings, checks=checks)
"""
