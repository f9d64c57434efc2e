"""The control loops of a running cluster: objects to pods, and configuration to proxies."""

from __future__ import annotations

import asyncio
import contextlib
import time

from lab.cluster import controllers
from lab.cluster.addresses import NoAddressesError
from lab.cluster.running import Cluster, Mesh

BURST = 0.02
"""Seconds between two rounds: changes come in bursts, which one round takes together."""

AGAIN = 1.0
"""Seconds until a port that could not be bound is asked for again."""


async def run(cluster: Cluster) -> None:
    """Works through changes until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_reconcile(cluster))
        if cluster.mesh is not None:
            group.create_task(_configure(cluster, cluster.mesh))


async def _reconcile(cluster: Cluster) -> None:
    while True:
        await cluster.dirty.wait()
        cluster.dirty.clear()
        problem = ""
        try:
            try:
                await cluster.services.serve(cluster.pods, publish_ui=cluster.mesh is None)
            except OSError as error:
                # Pods start all the same, and the port is asked for again.
                problem = str(error)
                asyncio.get_running_loop().call_later(AGAIN, cluster.dirty.set)
            controllers.reconcile(cluster)
            cluster.problem = problem
        except NoAddressesError as error:
            cluster.problem = str(error)
        except Exception as error:
            cluster.defect("reconcile", error)
        await cluster.announce()
        await asyncio.sleep(BURST)


async def _configure(cluster: Cluster, mesh: Mesh) -> None:
    while True:
        revision = cluster.revision
        if cluster.pushed < revision:
            try:
                snapshot = cluster.snapshot()
                cluster.rejected = await mesh.push(snapshot, dict(cluster.runners))
                cluster.given.append((time.time(), snapshot))
            except Exception as error:
                # A defect of the translation must not end the lab: the proxies keep what they
                # have, `status` says so, and the traceback is in the lab's own log.
                cluster.defect("configure the proxies", error)
                cluster.rejected = [cluster.problem]
            # The push has changed where gateways listen.
            with contextlib.suppress(NoAddressesError, OSError):  # _reconcile tells of these.
                await cluster.services.serve(cluster.pods, publish_ui=False)
            cluster.pushed = revision
            await cluster.announce()
        await cluster.wait_for_change(revision, 60)
