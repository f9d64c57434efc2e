"""The parts that the three services share: settings, logs, telemetry, health, and the server.

Every service's `__main__` is the same:

    settings = load(Settings)
    logs.configure(settings)
    run(instrument(create_app(settings), settings), settings=settings, checks=checks)
"""
