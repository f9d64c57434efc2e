"""The parts that the three services share: settings, logs, telemetry, health, and the server.

Every service's `__main__` is the same:

    settings = load(Settings)
    run(create_app(settings), settings=settings, checks=checks)

`create_app` returns an application in the layers of `instrument`.
"""
