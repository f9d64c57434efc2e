"""`token`, `proxy-config` and `graph`: tokens for requests, and what the proxies say."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli.client import FailureError
from lab.cli.context import Namespace, client, namespace, settings
from lab.cli.output import columns, write

if TYPE_CHECKING:
    from lab.cli.proxies import Proxy
    from lab.observe.graph import Edge


def register(app: typer.Typer) -> None:
    app.command()(token)
    app.command(name="proxy-config")(proxy_config)
    app.command(name="pc", hidden=True)(proxy_config)
    app.command()(graph)


def token(
    context: typer.Context,
    issuer: Annotated[str, typer.Option(help="The claim iss.")] = "testing@secure.istio.io",
    subject: Annotated[str, typer.Option(help="The claim sub.")] = "testing@secure.istio.io",
    audience: Annotated[
        list[str] | None, typer.Option(help="The claim aud; may be given again.")
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another claim; VALUE is JSON or plain text."),
    ] = None,
    expires_in: Annotated[str, typer.Option(help="How long it is valid, as 30s or 1h.")] = "1h",
    expired: Annotated[bool, typer.Option("--expired", help="Expired an hour ago.")] = False,
    wrong_key: Annotated[
        bool, typer.Option("--wrong-key", help="Signed with a key nobody knows.")
    ] = False,
    jwks: Annotated[
        bool, typer.Option("--jwks", help="Print the public key set instead of a token.")
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Print this manifest with the public key set in place of its empty ones.",
        ),
    ] = None,
) -> None:
    """Print a JSON Web Token, or the public keys that a RequestAuthentication needs to check it.

    The key is made for you on first use and stays in the lab's state folder. No lab has to run.

    Examples:
      guestbook token
      guestbook token --subject somebody@example.com --claim 'groups=["admins"]'
      guestbook token --manifest istio/15-jwt/request-authentication.yaml | guestbook apply -f -
      curl -H "Authorization: Bearer $(guestbook token)" http://localhost:8080/
    """
    from lab.istiod import tokens

    try:
        signer = tokens.key(settings(context).state_folder() / "jwt")
    except OSError as error:
        raise FailureError(f"can't keep a key: {error}") from None
    if jwks:
        write(tokens.key_set(signer))
        return
    if manifest is not None:
        write(_filled(manifest, tokens.key_set(signer)), end="")
        return
    now = datetime.now(UTC)
    issued, lifetime = now, _lifetime(expires_in)
    if expired:
        issued, lifetime = now - timedelta(hours=2), timedelta(hours=1)
    write(
        tokens.mint(
            tokens.new_key() if wrong_key else signer,
            issued,
            issuer=issuer,
            subject=subject,
            audiences=audience or (),
            lifetime=lifetime,
            claims=dict(_claim(text) for text in claim or ()),
            named=tokens.key_id(signer),
        )
    )


def _lifetime(text: str) -> timedelta:
    from lab.resources.values import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise FailureError(f"--expires-in: {error}") from None


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise FailureError(f'--claim {text}: write it as NAME=VALUE, for example groups=["admins"]')
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _filled(manifest: Path, keys: str) -> str:
    import yaml

    from lab.istiod.tokens import NoPlaceError, filled

    try:
        text = sys.stdin.read() if str(manifest) == "-" else manifest.read_text()
        return filled(text, keys)
    except (OSError, UnicodeDecodeError) as error:
        raise FailureError(f"{manifest}: {error}") from None
    except (NoPlaceError, yaml.YAMLError) as error:
        raise FailureError(f"{manifest}: {error}") from None


def proxy_config(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(help="listeners, routes, clusters, endpoints, secret or all."),
    ],
    target: Annotated[str, typer.Argument(metavar="POD | KIND/NAME", help="Whose proxy.")],
    port: Annotated[int, typer.Option(help="Only what is for this port.")] = 0,
    fqdn: Annotated[str, typer.Option(help="Only clusters and endpoints of this host.")] = "",
    name: Annotated[str, typer.Option(help="Only what is called exactly so.")] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", help="json for all that Envoy has, or short.")
    ] = "short",
    namespace_: Namespace = None,
) -> None:
    """Print what a proxy was given, asked from the proxy itself, as `istioctl proxy-config` does.

    Examples:
      guestbook proxy-config routes deploy/istio-ingressgateway -n istio-system
      guestbook proxy-config clusters deploy/ui --fqdn message-service.default.svc.cluster.local
      guestbook proxy-config endpoints deploy/ui --port 80
      guestbook proxy-config secret deploy/ui -o json
    """
    from lab.cli.proxies import chosen
    from lab.cli.proxy_tables import ALIASES, TABLES, Filter

    kind = ALIASES.get(kind, kind)
    if kind not in (*TABLES, "all"):
        raise FailureError(f"unknown {kind!r}; there are {', '.join(TABLES)} and all")
    if output not in ("short", "json"):
        raise FailureError(f"-o {output}: there are short and json")
    proxy = chosen(client(context), namespace(context, namespace_), target)
    wanted = Filter(port, fqdn, name)
    shown: dict[str, Any] = {}
    for one in TABLES if kind == "all" else (kind,):
        table = TABLES[one]
        options = {"format": "json"} if table.page == "/clusters" else {"include_eds": "on"}
        items = table.items(json.loads(proxy.page(table.page, **options)), wanted)
        if output == "json":
            shown[one] = items
            continue
        if kind == "all":
            write(f"{one.upper()}:")
        write("\n".join(columns(table.header, table.rows(items))))
        if kind == "all":
            write("")
    if output == "json":
        write(json.dumps(shown if kind == "all" else shown[kind], indent=2))


def graph(
    context: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", help="table, json or svg.")] = "table",
    interval: Annotated[
        float, typer.Option(help="How many seconds to watch for the rates.", min=0.1)
    ] = 2.0,
) -> None:
    """Show who calls whom, with rates, success and latency, from the proxies' own statistics.

    Calls, success and latency are since each proxy started; the rate is of the last moment.

    Examples:
      guestbook graph
      guestbook graph -o svg > graph.svg
      guestbook graph -o json --interval 10
    """
    import time

    from lab.cli.proxies import everywhere
    from lab.observe import graph as graphs
    from lab.observe.graph_svg import picture

    if output not in ("table", "json", "svg"):
        raise FailureError(f"-o {output}: there are table, json and svg")
    proxies = everywhere(client(context))
    if sys.stderr.isatty():
        sys.stderr.write(f"Watching {len(proxies)} proxies for {interval:g} s...\n")
    started = time.monotonic()
    before = _edges(proxies)
    time.sleep(interval)
    after = _edges(proxies)
    rate = graphs.rates(before, after, time.monotonic() - started)
    if output == "json":
        write(json.dumps(graphs.as_json(after, rate), indent=2))
    elif output == "svg":
        write(picture(after, rate), end="")
    elif not after:
        write("No calls yet: send a request through the gateway.")
    else:
        write("\n".join(columns(graphs.HEADER, graphs.rows(after, rate))))


def _edges(proxies: list[Proxy]) -> list[Edge]:
    from concurrent.futures import ThreadPoolExecutor

    from lab.observe import graph as graphs

    def one(proxy: Proxy) -> list[Edge]:
        text = proxy.page(
            "/stats", format="json", histogram_buckets="detailed", filter=graphs.STATS
        )
        source = graphs.workload(proxy.labels, proxy.name, proxy.namespace)
        return graphs.edges(source, json.loads(text), gateway="istio" in proxy.labels)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return graphs.merged(edge for found in pool.map(one, proxies) for edge in found)
